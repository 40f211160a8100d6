//! What a process does that serves no endpoints but answers for them: it follows the configuration and the clock.

use super::{LOOK, look::Versions};
use crate::{
    Shared, clock_sync,
    connection::{Own, Use},
    failure::Failure,
};
use postrider_store::StoreError;
use std::{sync::Arc, time::Duration};

/// Follows until the store closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut own = Own::new(shared.address.clone(), Use::Reading);
    let mut versions = Versions::default();
    while !shared.is_closed() {
        let rest = match round(&shared, &mut own, &mut versions).await {
            Ok(()) if shared.keeper.state().hears => LOOK,
            Ok(()) => shared.config.poll_time(),
            Err(failure) => {
                let error = StoreError::from(failure);
                tracing::debug!(%error, "looking for changed configuration failed");
                own.give_up();
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = shared.keeper.wake.notified() => {}
            () = tokio::time::sleep(rest) => {}
            () = shared.closing.notified() => {}
        }
    }
}

async fn round(shared: &Shared, own: &mut Own, versions: &mut Versions) -> Result<(), Failure> {
    let connection = own.get().await?;
    // It has nothing that waits: only what it writes goes by the clock.
    clock_sync::compare(shared, connection).await?;
    versions.look(shared, connection).await?;
    Ok(())
}
