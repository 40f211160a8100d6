//! `deliveries`: the hold on deliveries, step by step until it is done.

use super::{print, reached::Reached};
use crate::{
    admin::holding::Ask,
    cli::{DeliveriesCommand, Settings},
    failure::Failure,
};
use serde_json::Value;
use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

pub(super) async fn run(command: DeliveriesCommand) -> Result<(), Failure> {
    match command {
        DeliveriesCommand::Status { settings, json } => status(&settings, json).await,
        DeliveriesCommand::Hold { settings, reason } => {
            let ask = Ask { what: "hold".to_owned(), reason: Some(reason), ..Ask::default() };
            let (moved, _) = all(&settings, ask).await?;
            print(&format!(
                "{moved} deliveries were put on hold. See `postrider deliveries --help` for the ways out.\n"
            ))
        }
        DeliveriesCommand::Release { settings } => {
            let ask = Ask { what: "release".to_owned(), ..Ask::default() };
            let (moved, _) = all(&settings, ask).await?;
            print(&format!("{moved} deliveries are due as they were. The hold is over.\n"))
        }
        DeliveriesCommand::Drop { settings, due_before } => {
            let ask = Ask { what: "drop".to_owned(), due_before, ..Ask::default() };
            let (moved, cancelled) = all(&settings, ask).await?;
            print(&format!(
                "{cancelled} deliveries were cancelled, {moved} are due as they were. The hold is over.\n"
            ))
        }
        DeliveriesCommand::Retime { settings, over_minutes } => {
            let from = postrider_store::Clock::default().now();
            let until = from.plus(Duration::from_mins(u64::from(over_minutes)));
            let ask = Ask {
                what: "retime".to_owned(),
                from: Some(from.to_rfc3339()),
                until: Some(until.to_rfc3339()),
                ..Ask::default()
            };
            let (moved, _) = all(&settings, ask).await?;
            print(&format!(
                "{moved} deliveries are due between now and {}. The hold is over.\n",
                until.to_rfc3339()
            ))
        }
    }
}

async fn status(settings: &Settings, json: bool) -> Result<(), Failure> {
    let reached = Reached::of(settings).await?;
    let stands = reached.administration.call("GET", "/hold", None).await;
    reached.close().await;
    let stands = stands?;
    if json {
        return print(&format!("{stands}\n"));
    }
    let hold = &stands["hold"];
    let text = |name: &str| hold[name].as_str().unwrap_or("-").to_owned();
    if hold.is_null() {
        return print("No hold: deliveries are made as they are due.\n");
    }
    print(&format!(
        "Deliveries are on hold since {}: {}.\n  on hold                      {}\n  due before the hold began    {}  (may \
         have been sent)\n  the earliest was due         {}\n",
        text("since"),
        text("reason"),
        hold["deliveries"],
        hold["overdue"],
        text("oldestDue"),
    ))
}

/// Asks for step after step. Interrupted, the same command goes on: what is done is done.
async fn all(settings: &Settings, mut ask: Ask) -> Result<(u64, u64), Failure> {
    let reached = Reached::of(settings).await?;
    let (mut moved, mut cancelled) = (0, 0);
    let shows = std::io::stderr().is_terminal();
    let done = loop {
        let step = match step(&reached, &ask).await {
            Ok(step) => step,
            Err(failure) => break Err(failure),
        };
        moved += step["moved"].as_u64().unwrap_or(0);
        cancelled += step["cancelled"].as_u64().unwrap_or(0);
        if shows {
            // A closed standard error is no reason to fail.
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", moved + cancelled);
        }
        match serde_json::from_value(step["next"].clone()) {
            Ok(Some(next)) => ask.next = Some(next),
            _ => break Ok((moved, cancelled)),
        }
    };
    if shows {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    reached.close().await;
    done
}

async fn step(reached: &Reached, ask: &Ask) -> Result<Value, Failure> {
    let ask = serde_json::to_value(ask).map_err(|error| Failure::other(error.to_string()))?;
    reached.administration.call("POST", "/hold/step", Some(&ask)).await
}
