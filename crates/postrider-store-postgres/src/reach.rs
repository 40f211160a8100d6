//! Whether the database can be reached, as this process knows. While it cannot, every caller is told so at once, and one
//! task alone knocks, ever more rarely, until it is there again.
//!
//! A connection that is refused or ends shows itself. A way that swallows everything shows itself by silence: an answer
//! that takes long makes the task knock over a connection of its own, and when that is not answered either, everything
//! that waits for an answer is given up. A slow statement is not a database that is away.

use crate::failure::unavailable;
use postrider_store::StoreError;
use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// An answer that takes longer makes this process knock.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// How long a knock may stay unanswered.
const KNOCK: Duration = Duration::from_secs(3);
/// Between the first two knocks; each later wait is twice as long, up to [`MOST`].
const FIRST: Duration = Duration::from_millis(100);
/// Between knocks at most: so long an outage lasts longer here than elsewhere.
const MOST: Duration = Duration::from_secs(1);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Reach {
    state: Mutex<State>,
    /// How often the database fell silent: what was asked before is not waited for any more.
    silences: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when, and why.
    away: Option<(Instant, String)>,
    knocking: bool,
}

impl Default for Reach {
    fn default() -> Self {
        Self { state: Mutex::default(), silences: watch::Sender::new(0) }
    }
}

impl Reach {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error while the database is away.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &self.state().away {
            None => Ok(()),
            Some((_, why)) => Err(unavailable(format!("the database cannot be reached: {why}"))),
        }
    }

    /// How often it fell silent: a connection from before is of no use.
    pub(crate) fn silences(&self) -> u64 {
        *self.silences.borrow()
    }

    /// Returns when it falls silent after so many times.
    pub(crate) async fn silent_after(&self, silences: u64) {
        // The sender lives as long as this.
        let _ = self.silences.subscribe().wait_for(|now| *now > silences).await;
    }

    /// A connection was refused: until a knock is answered nobody else tries.
    pub(crate) fn refused<F: Future<Output = Result<(), String>> + Send>(
        self: &Arc<Self>,
        why: &str,
        knock: impl Fn() -> F + Send + 'static,
    ) {
        let mut state = self.state();
        if state.away.is_none() {
            state.go_away(why);
        }
        drop(state);
        self.suspect(knock);
    }

    /// An answer takes long: finds out whether the database is there, unless somebody does already.
    pub(crate) fn suspect<F: Future<Output = Result<(), String>> + Send>(
        self: &Arc<Self>,
        knock: impl Fn() -> F + Send + 'static,
    ) {
        if std::mem::replace(&mut self.state().knocking, true) {
            return;
        }
        let reach = Arc::downgrade(self);
        tokio::spawn(async move {
            // Ends with the store, whose connections hold the other ends.
            let _knocking = Knocking(Weak::clone(&reach));
            let mut wait = FIRST;
            loop {
                let answer = tokio::time::timeout(KNOCK, knock()).await;
                let Some(reach) = reach.upgrade() else { return };
                if reach.knocked(answer.ok()) {
                    return;
                }
                drop(reach);
                // Nodes that lost it at the same moment do not come back at the same moment.
                tokio::time::sleep(wait.mul_f64(rand::random_range(0.75..1.25))).await;
                wait = (wait * 2).min(MOST);
            }
        });
    }

    /// What came of a knock; `true` when it was answered.
    fn knocked(&self, answer: Option<Result<(), String>>) -> bool {
        let mut state = self.state();
        match answer {
            Some(Ok(())) => {
                if let Some((since, _)) = state.away.take() {
                    let seconds = since.elapsed().as_secs_f64();
                    tracing::info!(seconds, "the database can be reached again");
                }
                state.knocking = false;
                true
            }
            Some(Err(why)) => {
                state.go_away(&why);
                false
            }
            None => {
                state.go_away("it does not answer");
                drop(state);
                self.silences.send_modify(|silences| *silences += 1);
                false
            }
        }
    }
}

impl State {
    fn go_away(&mut self, why: &str) {
        let since = self.away.take().map(|(since, _)| since);
        if since.is_none() {
            tracing::error!(why, "the database cannot be reached: what needs it is refused until it can");
        }
        self.away = Some((since.unwrap_or_else(Instant::now), why.to_owned()));
    }
}

/// A task that ends with its runtime leaves no mark.
struct Knocking(Weak<Reach>);

impl Drop for Knocking {
    fn drop(&mut self) {
        if let Some(reach) = self.0.upgrade() {
            reach.state().knocking = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Knocks that are answered as the list says, then well.
    fn knocks(answers: &'static [Option<&'static str>]) -> (Arc<AtomicU32>, impl Fn() -> Answered + Send) {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let knock = move || -> Answered {
            let number = counted.fetch_add(1, Ordering::Relaxed) as usize;
            Box::pin(async move {
                match answers.get(number) {
                    Some(Some(why)) => Err((*why).to_owned()),
                    Some(None) => std::future::pending().await,
                    None => Ok(()),
                }
            })
        };
        (count, knock)
    }

    type Answered = std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

    #[tokio::test(start_paused = true)]
    async fn while_it_is_away_callers_are_told_at_once_and_one_task_knocks_ever_more_rarely() {
        let reach = Arc::new(Reach::default());
        let (count, knock) = knocks(&[Some("refused"); 60]);
        assert!(reach.check().is_ok());
        reach.refused("refused", knock);
        for _ in 0..100 {
            reach.refused("refused", || async { panic!("a second task knocks") });
            assert!(matches!(reach.check(), Err(StoreError::Unavailable { .. })));
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let knocked = count.load(Ordering::Relaxed);
        assert!((25..40).contains(&knocked), "{knocked} in 30 s");
        assert_eq!(reach.silences(), 0, "refused is not silent");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(reach.check().is_ok());
        assert_eq!(count.load(Ordering::Relaxed), 61, "and then nobody knocks any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_waited_for_and_silence_is_not() {
        let reach = Arc::new(Reach::default());
        let (count, knock) = knocks(&[]);
        reach.suspect(knock);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((count.load(Ordering::Relaxed), reach.silences()), (1, 0), "it is there, only slow");
        let (_, knock) = knocks(&[None]);
        let begun = Instant::now();
        reach.suspect(knock);
        reach.silent_after(0).await;
        assert_eq!(begun.elapsed(), KNOCK);
        assert!(reach.check().is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(reach.check().is_ok());
    }
}
