//! Backups over the administration: one at a time, begun by a request and asked about by others.

use super::refusal;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use postrider_store::{
    Store,
    backup::{BackupError, BackupProgress, Manifest},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A backup to make.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// An absolute path of a file that does not exist.
    pub to: PathBuf,
    /// At most so many.
    pub bytes_per_second: u64,
}

/// The latest backup.
enum Job {
    Runs(Arc<BackupProgress>),
    Ended(Result<Manifest, BackupError>),
}

#[derive(Clone)]
struct Backups {
    store: Arc<dyn Store>,
    job: Arc<Mutex<Option<Job>>>,
}

impl Backups {
    fn job(&self) -> MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes.
pub(super) fn routes(store: Arc<dyn Store>) -> Router {
    let backups = Backups { store, job: Arc::default() };
    Router::new().route("/backup", get(stand).post(begin)).with_state(backups)
}

async fn begin(State(backups): State<Backups>, Json(ask): Json<Ask>) -> Response {
    if !ask.to.is_absolute() {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY, "the path must be absolute");
    }
    let progress = Arc::new(BackupProgress::default());
    {
        let mut job = backups.job();
        if matches!(*job, Some(Job::Runs(_))) {
            return refusal(StatusCode::CONFLICT, "a backup is being made already");
        }
        *job = Some(Job::Runs(Arc::clone(&progress)));
    }
    let making = backups.clone();
    tokio::spawn(async move {
        let ended = making.store.back_up(&ask.to, ask.bytes_per_second, progress).await;
        match &ended {
            Ok(manifest) => {
                tracing::info!(to = %ask.to.display(), bytes = manifest.bytes, "a backup was made");
            }
            Err(error) => tracing::warn!(%error, "a backup failed"),
        }
        *making.job() = Some(Job::Ended(ended));
    });
    (StatusCode::ACCEPTED, Json(shown(&backups))).into_response()
}

async fn stand(State(backups): State<Backups>) -> Json<Value> {
    Json(shown(&backups))
}

fn shown(backups: &Backups) -> Value {
    match &*backups.job() {
        None => json!({ "state": "none" }),
        Some(Job::Runs(progress)) => {
            let (done, total) = progress.get();
            json!({ "state": "running", "done": done, "total": total })
        }
        Some(Job::Ended(Err(error))) => json!({ "state": "failed", "detail": error.to_string() }),
        Some(Job::Ended(Ok(manifest))) => json!({
            "state": "done",
            "instance": manifest.instance,
            "takenAt": manifest.taken_at.to_rfc3339(),
            "schemaVersion": manifest.schema_version,
            "bytes": manifest.bytes,
            "keyringKeys": manifest.keys,
        }),
    }
}
