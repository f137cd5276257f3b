//! `weir check`: configuration, policy module, store, SQL schema; what to change, and whether it would start.

use serde_json::json;

use super::{Failure, Where};
use crate::app::{AppError, demo, kind_policies, schema};
use crate::policy::Policies;

/// Checks everything that a start would check, and prints it.
///
/// # Errors
/// The first thing that forbids a start.
pub async fn run(place: Where, json: bool) -> Result<(), Failure> {
    let (config, is_demo) = place.load()?;
    config.validate()?;
    let config = if is_demo { demo::prepare(&place.data).await? } else { config };
    let mut report = Report { json, lines: Vec::new() };
    report.line("configuration", if is_demo { "the embedded demo" } else { "valid" });

    let policies = Policies::load(&config.policy, &kind_policies(&config)).map_err(AppError::from)?;
    for module in policies.modules() {
        report.line("policy", format!("{} ({}): {}", module.source, module.digest, module.interfaces.join(", ")));
    }

    match crate::store::open(&config.store).await {
        Ok(store) => {
            store.ping().await?;
            report.line("store", store.durability().description);
            if !store.durability().survives_power_loss {
                report.line("warning", "the store loses acknowledged writes with the power");
            }
        }
        Err(error) => return Err(error.into()),
    }

    let sql = crate::sql::open(&config.sql).await?;
    sql.ping().await?;
    report.line("sql", format!("{} answers", sql.engine()));
    let findings = schema::findings(&config, &*sql).await?;
    sql.close().await;
    let refused = findings.iter().any(|found| !found.finding.warning);
    if json {
        println!("{}", json!({ "ok": !refused, "checks": report.lines, "findings": findings }));
    } else if !findings.is_empty() {
        println!("{}", schema::describe(&findings));
    }
    if refused {
        return Err(Failure::no("the SQL schema does not fit; run the statements above, then check again"));
    }
    report.line("result", "weir would start");
    Ok(())
}

struct Report {
    json: bool,
    lines: Vec<serde_json::Value>,
}

impl Report {
    fn line(&mut self, what: &str, text: impl Into<String>) {
        let text = text.into();
        if !self.json {
            println!("{what}: {text}");
        }
        self.lines.push(json!({ "what": what, "text": text }));
    }
}
