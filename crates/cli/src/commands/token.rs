//! `chancery token`: join tokens, made once, shown once, spent once.

use anyhow::Result;
use chancery_api::{CreateTokenRequest, TokenQuery, TokenState};
use chancery_types::{Digest, HumanDuration, TokenId};
use clap::{ArgGroup, Args, Subcommand};

use crate::commands::{pair, text_of, word};
use crate::connection::Connection;
use crate::flags::Globals;
use crate::listing::Extent;
use crate::place::{self, Place};
use crate::terminal::Terminal;

/// Makes join tokens, lists and withdraws them.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a join token. It is printed this once and stored nowhere.
    Create(Create),
    /// List join tokens, without their secrets.
    List(List),
    /// Withdraw a join token.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true).args(["identity", "template"]))]
pub(crate) struct Create {
    /// The identity that it lets in, or its path alone beside a configuration.
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// The template that makes the identity that it lets in.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// A parameter of the template; repeatable.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "identity")]
    parameters: Vec<(String, String)>,
    /// How long it may wait to be spent, such as 1h; the server's default if absent.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<HumanDuration>,
    /// Only this key may enrol with it: SHA-256 of the SubjectPublicKeyInfo.
    #[arg(long, value_name = "HEX")]
    key_fingerprint: Option<Digest>,
    /// Put the root's fingerprint into the token, so that it alone bootstraps trust. The default.
    #[arg(long, overrides_with = "without_fingerprint")]
    with_fingerprint: bool,
    /// Leave the root's fingerprint out: shorter, and trust must be given by other means.
    #[arg(long)]
    without_fingerprint: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only in this state: open, spent, revoked or expired.
    #[arg(long, value_parser = word::<TokenState>)]
    state: Option<TokenState>,
    /// Only for this identity.
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    #[command(flatten)]
    extent: Extent,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Its public half, as `token list` shows it.
    id: TokenId,
    #[command(flatten)]
    connection: Connection,
}

impl Token {
    pub(crate) async fn run(&self, globals: &Globals, terminal: &Terminal) -> Result<()> {
        let place = Place::find(globals.config.as_deref())?;
        let place = place.as_ref();
        match self {
            Self::Create(create) => create.run(place, terminal).await,
            Self::List(list) => list.run(place, terminal).await,
            Self::Revoke(revoke) => {
                let view = revoke.connection.open_beside(place).await?.revoke_token(revoke.id).await?;
                terminal.data(&view, || format!("{} is {}", view.id, text_of(&view.state)))
            }
        }
    }
}

impl Create {
    fn meaning(&self, place: Option<&Place>) -> Result<CreateTokenRequest> {
        Ok(CreateTokenRequest {
            identity: self.identity.as_deref().map(|text| place::identity(text, place)).transpose()?,
            template: self.template.clone(),
            parameters: self.parameters.iter().cloned().collect(),
            ttl: self.ttl,
            key_fingerprint: self.key_fingerprint,
            with_fingerprint: !self.without_fingerprint,
        })
    }

    async fn run(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let request = self.meaning(place)?;
        let created = self.connection.open_beside(place).await?.create_token(&request).await?;
        terminal.data(&created, || created.token.expose_secret().to_owned())?;
        if !terminal.is_json() {
            terminal.note(format_args!(
                "\nToken {} lets in once, until {}. It is not shown again.",
                created.id,
                created.expires.whole_second()
            ));
            let server = place.map_or("https://HOST:PORT", |place| &place.server);
            terminal.note(format_args!(
                "Next: chancery enroll --server {server} --token-file FILE --out DIRECTORY"
            ));
        }
        Ok(())
    }
}

impl List {
    async fn run(&self, place: Option<&Place>, terminal: &Terminal) -> Result<()> {
        let identity = self.identity.as_deref().map(|text| place::identity(text, place)).transpose()?;
        let client = self.connection.open_beside(place).await?;
        let query = TokenQuery { limit: None, cursor: None, state: self.state, identity };
        let found = self
            .extent
            .fetch(terminal, |limit, cursor| {
                let (client, query) = (client.clone(), TokenQuery { limit, cursor, ..query.clone() });
                async move { client.list_tokens(&query).await }
            })
            .await?;
        terminal.data(&found, || {
            let rows = found.iter().map(|view| {
                let subject = view.identity.as_ref().map(ToString::to_string);
                let template = || view.template.as_ref().map(|name| format!("template {name}"));
                vec![
                    view.id.to_string(),
                    text_of(&view.state),
                    subject.or_else(template).unwrap_or_default(),
                    view.expires.whole_second().to_string(),
                    view.created_by.clone(),
                    view.spent_on.map(|serial| serial.to_string()).unwrap_or_default(),
                ]
            });
            terminal.table(&["token", "state", "lets in", "expires", "made by", "spent on"], rows)
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Command};

    fn create(arguments: &[&str]) -> Result<Create, clap::Error> {
        let line = ["chancery", "token", "create"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::Token(Token::Create(create)) => create,
            _ => panic!("not a token"),
        })
    }

    #[test]
    fn a_token_carries_the_fingerprint_unless_told_otherwise() {
        let meaning = |flags: &[&str]| create(flags).unwrap().meaning(None).unwrap();
        let id = "spiffe://example.org/web";
        assert!(meaning(&["--identity", id]).with_fingerprint);
        assert!(meaning(&["--identity", id, "--with-fingerprint"]).with_fingerprint);
        assert!(!meaning(&["--identity", id, "--without-fingerprint"]).with_fingerprint);
    }

    #[test]
    fn a_token_has_one_subject_and_parameters_need_a_template() {
        assert!(create(&[]).is_err());
        assert!(create(&["--identity", "spiffe://e/x", "--template", "ci"]).is_err());
        assert!(create(&["--identity", "spiffe://e/x", "--param", "a=b"]).is_err());
        let request = create(&["--template", "ci", "--param", "a=b"]).unwrap().meaning(None).unwrap();
        assert_eq!(request.parameters["a"], "b");
    }
}
