//! `weir check`: checks configuration, policy module, store and SQL schema; says what to change, and whether the host
//! would start. Changes nothing on disk: it copies what it cannot inspect in place, and creates missing parts in
//! memory.

use serde_json::json;

use super::{Failure, Where};
use crate::app::{custody, demo, load_policies, schema};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{HttpState, Kinds};
use crate::policy::{Compiler, PolicySetup};
use crate::store::{Inventory, StoreError};

/// Checks everything that a start would check, and prints it.
///
/// # Errors
/// The first thing that forbids a start.
pub async fn run(place: Where, json: bool) -> Result<(), Failure> {
    let mut report = Report { json, lines: Vec::new(), findings: Vec::new() };
    let result = check(&place, &mut report).await;
    if json {
        let code = result.as_ref().err().map_or(0, |failure| failure.code);
        let error = result.as_ref().err().map(|failure| failure.message.as_str());
        let (checks, findings) = (&report.lines, &report.findings);
        println!(
            "{}",
            json!({
                "ok": error.is_none(), "checks": checks, "findings": findings, "error": error, "exit_code": code,
            })
        );
    }
    result.map_err(Failure::told)
}

async fn check(place: &Where, report: &mut Report) -> Result<(), Failure> {
    let is_demo = place.is_demo();
    let loaded = place.load_to_serve()?;
    let config = loaded.config.with_namespace();
    // Keys and tokens are read where they are used.
    HttpState::new(&config.http, &config.auth, Kinds::default(), Clock::Real)?;
    for warning in loaded.warnings {
        report.line("warning", warning);
    }
    let is_new = is_demo && !demo::is_made(&place.data);
    report.line(
        "configuration",
        match (is_demo, is_new) {
            (false, _) => "valid".to_owned(),
            (true, false) => "the embedded demo".to_owned(),
            (true, true) => format!("the embedded demo; its first start makes {}", place.data.display()),
        },
    );

    let setup = PolicySetup { compiler: Compiler::this_executable(), is_look: true, ..PolicySetup::default() };
    let policies = load_policies(&config, setup).await?;
    for module in policies.registry.modules() {
        report.line("policy", format!("{} ({}): {}", module.name, module.digest, module.interfaces.join(", ")));
        if let Some(unfit) = &module.unfit {
            report.line("warning", format!("{} does not fit this weir, its kinds fall back: {unfit}", module.name));
        }
    }
    let holdings = check_store(&config, report).await?;
    for upstream in &config.upstreams {
        match crate::upstream::try_encrypting(upstream).await {
            Ok(None) => {}
            Ok(Some(())) => {
                report.line("upstream", format!("{}: {} has a good certificate", upstream.name, upstream.origin))
            }
            // No reason not to start: its requests are refused, and all others served.
            Err(reason) => report.line("warning", format!("upstream {}: {reason}", upstream.name)),
        }
    }

    let sql = crate::sql::open_to_look(&config.sql).await?;
    if is_new {
        // In memory: what a start would make.
        sql.execute_script(demo::TABLES).await?;
    }
    sql.ping().await?;
    report.line("sql", format!("{} answers", sql.engine()));
    report.findings = schema::findings(&config, &*sql).await?;
    if let Some(holdings) = holdings {
        report.findings.extend(custody::judge(&config, &holdings, &*sql).await?.findings);
    }
    let tables: Vec<_> = config.kinds().into_iter().map(|(_, table)| table).collect();
    let reads: Vec<String> = config.reads.iter().flat_map(|read| read.tables.clone()).collect();
    // A user that may not read the catalogue already sees that in the findings.
    for grant in sql.grants(&tables, &reads).await.unwrap_or_default() {
        report.line("needs", grant);
    }
    sql.close().await;
    if !report.json && !report.findings.is_empty() {
        println!("{}", schema::describe(&report.findings));
    }
    if report.findings.iter().any(|found| !found.finding.warning) {
        return Err(Failure::no("weir would not start; follow the remedies above, then check again"));
    }
    report.line("result", "weir would start");
    Ok(())
}

/// What it holds; `None` where nothing was begun, or a running host has it.
async fn check_store(config: &Config, report: &mut Report) -> Result<Option<Inventory>, Failure> {
    let (holdings, durability) = match crate::store::inspect(&config.store).await {
        Ok(looked) => looked,
        // The usual case: `check` beside the running host.
        Err(StoreError::InUse(_)) => {
            report.line("store", "in use by a running host, not checked");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    report.line("store", durability.description);
    if !durability.survives_power_loss {
        report.line("warning", "the store loses acknowledged writes with the power");
    }
    Ok(holdings)
}

struct Report {
    json: bool,
    lines: Vec<serde_json::Value>,
    findings: Vec<schema::KindFinding>,
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
