//! The flags that every command has, and the list of commands. What a flag means is decided elsewhere.

use std::path::PathBuf;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, Parser, Subcommand};

use crate::bench::Bench;
use crate::commands::{
    agent, audit, backup, bundle, ca, certificate, completions, contain, crl_sync, enroll, fetch, identity,
    init, ledger, log, man, node, operator, policy, profile, proxy, relying_party, renew, restore, revoke,
    root, run, serve, status, template, token, verify, version,
};
use crate::doctor::Doctor;
use crate::drill::Drill;
use crate::quickstart::Quickstart;

/// A private certificate authority whose every act can be proved.
///
/// Begin with `chancery init`, then `chancery serve`. Beside a configuration file (./chancery.toml,
/// ./chancery/chancery.toml, $CHANCERY_CONFIG or /etc/chancery) every other command finds its server, its trust
/// and its operator certificate by itself; elsewhere say --server and --trust-bundle or --fingerprint.
#[derive(Debug, Parser)]
#[command(
    name = "chancery",
    version,
    styles = STYLES,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = AFTER_HELP,
    after_long_help = AFTER_HELP,
    subcommand_help_heading = "Commands",
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command has.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The authority's configuration: chancery.toml, or the directory that holds it.
    #[arg(long, global = true, env = "CHANCERY_CONFIG", value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print data and errors only: no progress, no advice.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more: the whole chain of causes behind an error; twice, the requests too.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
}

/// The commands, in the order in which one meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an authority: root, issuer, keys, ledger, first operator.
    Init(init::Init),
    /// Keep the root: create it elsewhere, sign issuers, look at it.
    #[command(subcommand)]
    Root(root::Root),
    /// Run the authority.
    Serve(serve::Serve),
    /// Say everything that is wrong with a configuration.
    CheckConfig(serve::CheckConfig),
    /// Rebuild, check or archive the ledger.
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Check a deployment, and say what to do.
    Doctor(Doctor),
    /// Back the authority up while it runs, encrypted.
    Backup(backup::Backup),
    /// Make an authority from a backup, unless that would make revoked certificates good again.
    Restore(restore::Restore),

    /// Register identities, and hold, release or retire them.
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Look at nodes, and shut them out.
    #[command(subcommand)]
    Node(node::Node),
    /// Register templates: identities that come into being when somebody enrols.
    #[command(subcommand)]
    Template(template::Template),
    /// Make join tokens, list and withdraw them.
    #[command(subcommand)]
    Token(token::Token),
    /// Issue certificates to operators.
    #[command(subcommand)]
    Operator(operator::Operator),

    /// Get the first certificate of a workload.
    Enroll(enroll::Enroll),
    /// Replace a certificate and its key by the next ones.
    Renew(renew::Renew),
    /// Run the agent of this machine, which gives local processes their identities.
    Agent(agent::Agent),
    /// Get this process's identity from the agent, for scripts.
    #[command(subcommand)]
    Fetch(fetch::Fetch),
    /// Run a program with an identity from the agent.
    Run(run::Run),

    /// Pass connections on with TLS, and cut those of peers that are revoked.
    Proxy(proxy::ProxyCommand),
    /// Answer Envoy and nginx whether a client may.
    Authz(proxy::AuthzCommand),
    /// Keep revocation lists in files for nginx, HAProxy and their like.
    CrlSync(crl_sync::CrlSyncCommand),

    /// Search certificates, and look at one.
    #[command(subcommand)]
    Certificate(certificate::Certificate),
    /// Revoke certificates for good.
    Revoke(revoke::Revoke),
    /// Hold certificates: not valid until they are released.
    Hold(revoke::Hold),
    /// Hold certificates, watch it reach everybody, then revoke or release them.
    Contain(contain::Contain),
    /// Release certificates from hold.
    Release(revoke::Release),
    /// Say what a certificate is worth now, or follow what changes.
    Status(status::Status),
    /// See who enforces status, and how far.
    #[command(subcommand)]
    RelyingParty(relying_party::RelyingParty),
    /// Explain the decision behind a certificate.
    Why(status::Why),
    /// Show, question and test the policy.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Show the profiles in force.
    #[command(subcommand)]
    Profile(profile::Profile),

    /// Print the roots that relying parties trust.
    Bundle(bundle::Bundle),
    /// Look at the authority's own certificates.
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Read the transparency log.
    #[command(subcommand)]
    Log(log::Log),
    /// Export the log and verify it, trusting nobody.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Verify offline that a certificate stands in the log.
    Verify(verify::Verify),

    /// Show the whole story on this machine, in seconds, and leave nothing behind.
    Quickstart(Quickstart),
    /// Rehearse an incident on this machine: who is still let in, and for how long.
    Drill(Drill),
    /// Measure how fast this machine issues, beside what its cryptography and disk allow.
    Bench(Bench),

    /// Print completions for a shell.
    Completions(completions::Completions),
    /// Write manual pages into a directory.
    #[command(hide = true)]
    Man(man::Man),
    /// Print the version.
    Version(version::Version),
}

impl Command {
    /// Whether it writes a log of its own.
    pub(crate) fn starts_log(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Agent(_) | Self::Proxy(_) | Self::Authz(_) | Self::CrlSync(_))
    }
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Groups:
  run one    init, root, serve, check-config, ledger, doctor, backup, restore
  let in     identity, template, token, operator
  be let in  enroll, renew, agent, fetch, run
  watch      certificate, revoke, hold, contain, release, status, relying-party, why, policy, profile
  enforce    proxy, authz, crl-sync
  trust      bundle, ca, log, audit, verify
  try        quickstart, drill, bench

Exit codes: 0 done, 1 failed, 2 misused, 3 refused by the authority, 4 verification failed.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_in_one_line() {
        for command in Cli::command().get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && about.len() < 90, "{}: {about:?}", command.get_name());
        }
    }

    #[test]
    fn quiet_and_verbose_exclude_each_other() {
        assert!(Cli::try_parse_from(["chancery", "-q", "-v", "version"]).is_err());
        assert!(Cli::try_parse_from(["chancery", "version", "-vv", "--json"]).is_ok());
    }
}
