//! Which engine should keep the index over the journal? Measures candidates on the access pattern of the read
//! model, and writes and checks stores for the power-cut test (`scripts/powercut`).
//!
//! Not part of the product: a workspace of its own, so that the engines not chosen stay out of its lock file.

mod certificate;
mod engine;
mod journal;
mod measure;
mod probe;
mod process;
mod run;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::certificate::Tables;
use crate::run::{BatchSize, Plan, Until};

const USAGE: &str = "\
usage: stores measure [--certificates N] [--seconds S] [--stores A,B] [--dir D] [--json FILE]
       stores run     --store S --dir D [--batch N] [--length N | --seconds S] [--pace N]
                      [--apply-at-least N] [--apply-at-most N] [--patience-ms N] [--lag N]
                      [--durable-ms N] [--rss-limit-mib N] [--tables INITIALS]
       stores open    --store S --dir D
       stores lookups --store S --dir D
       stores write   --store S --dir D       prints `ack journal N` and `ack index N` until it is killed
       stores alone   --store S --dir D       the same without a journal
       stores check   --store S --dir D       reads the acknowledgements on standard input
stores: journal redb fjall sled sled+fdatasync careless";

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let options = Options::read(words)?;
    match command.as_str() {
        "measure" => measure::measure(&effort(&options)?),
        "run" => print(&run::run(&options.dir()?, &plan(&options)?)?),
        "open" => print(&probe::open(options.store()?, &options.dir()?)?),
        "lookups" => print(&probe::lookups(options.store()?, &options.dir()?)?),
        "write" => {
            let plan = Plan {
                batch: BatchSize::Random(64),
                until: Until::Elapsed(Duration::from_secs(3600)),
                durable_every: Duration::from_millis(options.number("durable-ms", 100)?),
                acknowledge: true,
                ..plan(&options)?
            };
            run::run(&options.dir()?, &plan)?;
            Ok(())
        }
        "alone" => run::write_alone(&options.dir()?, options.store()?),
        "check" => {
            let lines = std::io::stdin().lock().lines().map_while(Result::ok);
            println!("{}", probe::check(options.store()?, &options.dir()?, lines)?);
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn plan(options: &Options) -> Result<Plan> {
    let until = match (options.get("length"), options.get("seconds")) {
        (Some(length), None) => Until::Length(length.parse()?),
        (None, seconds) => Until::Elapsed(Duration::from_secs_f64(seconds.unwrap_or("10").parse()?)),
        _ => bail!("--length or --seconds, not both"),
    };
    Ok(Plan {
        store: options.store()?.to_owned(),
        tables: options.get("tables").map_or(Tables::ALL, Tables::named),
        batch: BatchSize::Fixed(options.number("batch", 256)?),
        until,
        pace: options.get("pace").map(str::parse).transpose()?,
        apply_at_least: options.number("apply-at-least", 1024)?,
        patience: Duration::from_millis(options.number("patience-ms", 250)?),
        apply_at_most: options.number("apply-at-most", 32_768)?,
        lag: options.number("lag", 65_536)?,
        durable_every: Duration::from_millis(options.number("durable-ms", 1000)?),
        rss_limit_mib: options.number("rss-limit-mib", 4096.0)?,
        acknowledge: false,
    })
}

fn effort(options: &Options) -> Result<measure::Effort> {
    let stores = options.get("stores").map_or(engine::STORES.join(","), str::to_owned);
    Ok(measure::Effort {
        stores: stores.split(',').map(str::to_owned).collect(),
        certificates: options.number("certificates", 1_000_000)?,
        seconds: options.number("seconds", 8.0)?,
        dir: options.get("dir").map_or_else(|| std::env::temp_dir().join("chancery-stores"), PathBuf::from),
        json: options.get("json").map(PathBuf::from),
    })
}

fn print(report: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

/// `--name value` pairs.
struct Options(BTreeMap<String, String>);

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").with_context(|| format!("what is {word}?\n{USAGE}"))?;
            let value = words.next().with_context(|| format!("--{name} needs a value"))?;
            ensure!(options.insert(name.to_owned(), value).is_none(), "--{name} is given twice");
        }
        Ok(Self(options))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number<T: FromStr>(&self, name: &str, otherwise: T) -> Result<T>
    where
        T::Err: std::error::Error + core::marker::Send + core::marker::Sync + 'static,
    {
        self.get(name)
            .map_or(Ok(otherwise), |value| value.parse().with_context(|| format!("--{name} {value}")))
    }

    fn store(&self) -> Result<&str> {
        self.get("store").with_context(|| format!("--store is missing\n{USAGE}"))
    }

    fn dir(&self) -> Result<PathBuf> {
        self.get("dir").map(PathBuf::from).with_context(|| format!("--dir is missing\n{USAGE}"))
    }
}
