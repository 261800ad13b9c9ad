//! The commands, one file for each noun: its flags, what they mean, and what is done.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod bundle;
pub(crate) mod ca;
pub(crate) mod certificate;
mod change;
pub(crate) mod completions;
pub(crate) mod contain;
pub(crate) mod crl_sync;
pub(crate) mod database;
pub(crate) mod enroll;
pub(crate) mod fetch;
pub(crate) mod follow;
pub(crate) mod identity;
pub(crate) mod init;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod man;
pub(crate) mod node;
pub(crate) mod operator;
pub(crate) mod policy;
pub(crate) mod profile;
pub(crate) mod proxy;
pub(crate) mod relying_party;
pub(crate) mod renew;
mod renewal;
pub(crate) mod restore;
pub(crate) mod revoke;
pub(crate) mod root;
mod root_rotate;
pub(crate) mod run;
mod scope;
pub(crate) mod serve;
pub(crate) mod status;
mod status_set;
pub(crate) mod template;
pub(crate) mod token;
pub(crate) mod verify;
pub(crate) mod version;
mod watch;

use anyhow::Result;

use chancery_telemetry::{Inherited, TraceContext, install};

use crate::flags::{Cli, Command};
use crate::log::start_plain_log;
use crate::terminal::Terminal;

/// Does what was asked.
pub(crate) async fn run(cli: &Cli, terminal: &Terminal) -> Result<()> {
    let globals = &cli.globals;
    if !cli.command.starts_log() {
        inherit_trace();
    }
    if globals.verbose >= 2 && !cli.command.starts_log() {
        start_plain_log(globals);
    }
    match &cli.command {
        Command::Init(init) => init.run(globals, terminal).await,
        Command::Root(root) => root.run(globals, terminal),
        Command::Serve(serve) => serve.run(globals).await,
        Command::CheckConfig(check) => check.run(globals, terminal),
        Command::Doctor(doctor) => doctor.run(globals, terminal).await,
        Command::Ledger(ledger) => ledger.run(globals, terminal).await,
        Command::Backup(backup) => backup.run(globals, terminal).await,
        Command::Restore(restore) => restore.run(globals, terminal).await,
        Command::Identity(identity) => identity.run(globals, terminal).await,
        Command::Node(node) => node.run(globals, terminal).await,
        Command::Template(template) => template.run(globals, terminal).await,
        Command::Token(token) => token.run(globals, terminal).await,
        Command::Operator(operator) => operator.run(globals, terminal).await,
        Command::Enroll(enroll) => enroll.run(globals, terminal).await,
        Command::Renew(renew) => renew.run(globals, terminal).await,
        Command::Agent(agent) => agent.run(globals, terminal).await,
        Command::CrlSync(sync) => sync.run(globals, terminal).await,
        Command::Proxy(proxy) => proxy.run(globals).await,
        Command::Authz(authz) => authz.run(globals).await,
        Command::Fetch(fetch) => fetch.run(terminal).await,
        Command::Run(run) => run.run(terminal).await,
        Command::Certificate(certificate) => certificate.run(globals, terminal).await,
        Command::Revoke(revoke) => revoke.run(globals, terminal).await,
        Command::Hold(hold) => hold.run(globals, terminal).await,
        Command::Contain(contain) => contain.run(globals, terminal).await,
        Command::Release(release) => release.run(globals, terminal).await,
        Command::Status(status) => status.run(globals, terminal).await,
        Command::RelyingParty(parties) => parties.run(globals, terminal).await,
        Command::Why(why) => why.run(globals, terminal).await,
        Command::Policy(policy) => policy.run(globals, terminal).await,
        Command::Profile(profile) => profile.run(globals, terminal).await,
        Command::Bundle(bundle) => bundle.run(globals, terminal).await,
        Command::Ca(ca) => ca.run(globals, terminal).await,
        Command::Log(log) => log.run(globals, terminal).await,
        Command::Audit(audit) => audit.run(globals, terminal).await,
        Command::Verify(verify) => verify.run(globals, terminal).await,
        Command::Quickstart(quickstart) => quickstart.run(terminal).await,
        Command::Drill(drill) => drill.run(terminal).await,
        Command::Bench(bench) => bench.run(terminal).await,
        Command::Completions(completions) => completions.run(terminal),
        Command::Man(man) => man.run(terminal),
        Command::Version(version) => version.run(terminal),
    }
}

/// Reads a value that is written as JSON writes it, without the quotes: for flags of the interface's own words.
pub(crate) fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

/// Reads `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// The text that JSON has for a value of the interface's own words.
pub(crate) fn text_of<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// Whoever runs this command within a trace of its own says so in $TRACEPARENT; what is asked for here belongs to it.
fn inherit_trace() {
    let parent = std::env::var("TRACEPARENT").ok().and_then(|text| TraceContext::parse(&text));
    if let Some(parent) = parent {
        // There is none yet: this process has begun just now.
        let _ = install(Box::new(Inherited(parent)));
    }
}

#[cfg(test)]
mod tests {
    use chancery_api::CertificateStatus;
    use chancery_types::AssuranceLevel;

    use super::*;

    #[test]
    fn words_of_the_interface_are_read_and_mistakes_name_the_choices() {
        assert_eq!(word::<CertificateStatus>("held"), Ok(CertificateStatus::Held));
        assert_eq!(word::<AssuranceLevel>("AL2"), Ok(AssuranceLevel::Repeatable));
        assert!(word::<CertificateStatus>("bad").unwrap_err().contains("revoked"));
        assert_eq!(text_of(&CertificateStatus::Held), "held");
    }

    #[test]
    fn a_pair_needs_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
