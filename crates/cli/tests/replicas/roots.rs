//! Another root among replicas: brought to one of them, in force at all.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chancery_api::{CsrDer, RenewRequest};
use chancery_client::{Client, TlsIdentity};
use chancery_types::KeyAlgorithm;
use chancery_x509::SubjectKey;

use super::cluster::{Cluster, PASSPHRASE, REPLICAS, client_of};
use super::load::{Held, csr, fresh};
use super::rotation::{PATIENCE, all_sign, signs, steps, until_all};
use crate::process::{Ran, run};

const OLD: &str = "certs/root.crt";
const NEW: &str = "root-2/root.crt";

/// A root is made beside the replicas and brought to one of them, which dies: all others, and it when it is back, show both
/// roots, take clients of both, and sign below the new one.
pub(crate) async fn a_root_that_one_replica_was_brought_counts_at_all(cluster: &mut Cluster) {
    let old = all_sign(cluster, 1, &[OLD]).await;
    let before = sequences(cluster, None).await;
    assert_eq!(before.iter().map(|(roots, _)| *roots).collect::<Vec<_>>(), [1]);
    tokio::task::block_in_place(|| bring(cluster));
    cluster.kill(BROUGHT_TO);
    let until = Instant::now() + PATIENCE;
    loop {
        let now = sequences(cluster, Some(BROUGHT_TO)).await;
        if now.len() == 1 && now.iter().all(|(roots, sequence)| *roots == 2 && *sequence > greatest(&before))
        {
            break;
        }
        assert!(Instant::now() < until, "the bundles are {now:?}, before they were {before:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until_all(cluster, Some(BROUGHT_TO), "the issuer below the new root", signs(2)).await;
    cluster.spawn(BROUGHT_TO);
    cluster.each_serves().await;

    let held = all_sign(cluster, 2, &[OLD, NEW]).await;
    let shown = std::fs::read_to_string(cluster.beside().join("certs/bundle.pem")).unwrap();
    let both = [OLD, NEW].map(|root| std::fs::read_to_string(cluster.beside().join(root)).unwrap());
    assert_eq!(shown, both.concat(), "whole, whoever of them wrote it last");
    assert_eq!(sequences(cluster, None).await.len(), 1);
    for (which, address) in cluster.addresses.iter().enumerate() {
        // Whoever knows the new root alone finds a way from each server's own certificate to it, and the other way round.
        let by_new = |identity| client_of(&cluster.beside().join(NEW), *address, Some(identity));
        let other = &held[(which + 1) % REPLICAS];
        renew(&by_new(below_new_alone(other)), "a client of the new root").await;
        renew(&cluster.client(*address, Some(old[which].identity())), "a client of the old root").await;
    }
    tokio::task::block_in_place(|| lists(cluster));
    let mut served = BTreeSet::new();
    for address in &cluster.addresses {
        let lists = cluster.client(*address, None).root_crls(None).await.unwrap().unwrap();
        served.insert(String::from_utf8(lists.bytes.to_vec()).unwrap());
    }
    assert_eq!(served.iter().map(|lists| lists.matches("BEGIN X509 CRL").count()).collect::<Vec<_>>(), [2]);
    let steps = tokio::task::block_in_place(|| steps(cluster));
    let steps: Vec<&String> = steps.iter().filter(|step| !step.starts_with("jwt")).collect();
    let expected = [
        "issuer-activated 1",
        "root published",
        "root active",
        "issuer-prepared 2",
        "issuer-activated 2",
        "issuer-retired 1",
    ];
    assert_eq!(steps, expected, "each once, in this order");
}

const BROUGHT_TO: usize = 1;

fn at(cluster: &Cluster, which: usize, arguments: &[&str]) -> Ran {
    let config = cluster.path(which).join("chancery.toml");
    run(cluster.beside(), &[arguments, &["--config", config.to_str().unwrap()]].concat())
}

fn bring(cluster: &Cluster) {
    let rotate = ["root", "rotate", "--root-dir", "root", "--passphrase-file", PASSPHRASE, "--spares", "1"];
    let new = ["--new-root-dir", "root-2", "--new-passphrase-file", PASSPHRASE, "--out", "root-2.pem"];
    at(cluster, 0, &[&rotate[..], &new].concat()).success();
    at(cluster, BROUGHT_TO, &["ca", "root", "add", "root-2.pem"]).success();
}

/// The list of each root, where programs want one.
fn lists(cluster: &Cluster) {
    for (root, list) in [("root", "certs/root.crl"), ("root-2", "certs/root-2.crl")] {
        let crl = ["root", "crl", "--root-dir", root, "--passphrase-file", PASSPHRASE, "--out", list];
        run(cluster.beside(), &crl).success();
    }
}

/// How many roots bundles have, and their sequences; one where all replicas show the same.
async fn sequences(cluster: &Cluster, but: Option<usize>) -> BTreeSet<(usize, u64)> {
    let mut found = BTreeSet::new();
    for (_, address) in cluster.addresses.iter().enumerate().filter(|(which, _)| Some(*which) != but) {
        let bundle = cluster.client(*address, None).bundle_json().await.unwrap();
        let roots = bundle.keys.iter().filter(|key| key.purpose == "x509-svid").count();
        found.insert((roots, bundle.spiffe_sequence.unwrap()));
    }
    found
}

fn greatest(bundles: &BTreeSet<(usize, u64)>) -> u64 {
    bundles.iter().map(|(_, sequence)| *sequence).max().unwrap()
}

/// What it shows without the old root's word for the new one: only who trusts the new root takes it.
fn below_new_alone(held: &Held) -> TlsIdentity {
    let end = "-----END CERTIFICATE-----\n";
    let issuer = held.response.chain.split_inclusive(end).next().unwrap();
    let shown = format!("{}{issuer}", held.response.certificate);
    TlsIdentity::from_pem(shown.as_bytes(), held.key.to_pkcs8_pem().as_bytes()).unwrap()
}

async fn renew(client: &Client, who: &str) {
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let request = RenewRequest { csr: CsrDer::from_der(csr(&key)), lifetime: None, receipt: false };
    client.renew(&request, &fresh()).await.unwrap_or_else(|error| panic!("{who}: {error}"));
}
