//! The applications and endpoints of the cluster rig.

use super::{
    book::Notebook,
    member::Member,
    receivers::{self, Manner},
};
use crate::connection::Connection;
use anyhow::{Context as _, Result, ensure};
use std::{path::Path, sync::Arc};

/// Endpoints of each application: quick, slow, failing at times.
pub(crate) const MIXED: &[&[Manner]] = &[
    &[Manner::Quick, Manner::Slow, Manner::Flaky],
    &[Manner::Quick, Manner::Moody],
    &[Manner::Slow],
    &[Manner::Quick, Manner::Quick, Manner::Flaky, Manner::Slow],
];
/// Only quick ones, spread over all nodes.
pub(crate) const QUICK: &[&[Manner]] =
    &[&[Manner::Quick; 5], &[Manner::Quick; 5], &[Manner::Quick; 5], &[Manner::Quick; 5]];

/// Everything that messages are published for.
pub(crate) struct World {
    /// Ids by number.
    pub(crate) applications: Vec<String>,
    /// Ids by number, over all applications.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An endpoint.
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) application: usize,
}

impl World {
    /// Creates it through the first node, with a key for all of them.
    pub(crate) async fn create(
        members: &[Arc<Member>],
        plan: &[&[Manner]],
        folder: &Path,
        server: &Path,
        notebook: &Notebook,
    ) -> Result<Self> {
        let token = key(server, &folder.join("node-0")).await?;
        for member in members {
            member.use_token(&token).await;
        }
        let manners: Vec<Manner> = plan.iter().flat_map(|application| application.iter().copied()).collect();
        let receiver = receivers::start(manners, notebook).await?;
        let access = members[0].access().context("the first node does not run")?;
        let mut connection = Connection::open(access.address).await?;
        let mut world = Self { applications: Vec::new(), endpoints: Vec::new() };
        let mut audience = Vec::new();
        for (number, manners) in plan.iter().enumerate() {
            let body = format!(r#"{{"name":"rig {number}"}}"#);
            let application = access.create(&mut connection, "/api/v1/app", body).await?;
            let mut numbers = Vec::new();
            for _ in *manners {
                numbers.push(world.endpoints.len());
                let url = format!("http://{receiver}/endpoint/{}", world.endpoints.len());
                let path = format!("/api/v1/app/{application}/endpoint");
                let id = access.create(&mut connection, &path, format!(r#"{{"url":"{url}"}}"#)).await?;
                world.endpoints.push(Endpoint { id, application: number });
            }
            audience.push(numbers);
            world.applications.push(application);
        }
        notebook.book().audience = audience;
        Ok(world)
    }
}

/// A key of its own: each start of a development server replaces the key that it printed, on all nodes.
async fn key(server: &Path, data: &Path) -> Result<String> {
    let words = ["api-key", "create", "--environment", "org_dev", "--name", "rig", "--data-dir"];
    let made = tokio::process::Command::new(server).args(words).arg(data).output().await?;
    ensure!(made.status.success(), "api-key create: {}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout)?;
    Ok(text.lines().next().context("no token was printed")?.trim().to_owned())
}
