use std::sync::Arc;
use std::time::Duration;

use chancery_keys::SignError;
use chancery_types::{Clock as _, IssuerEpoch, SerialNumber};
use chancery_x509::PublicKey;
use chancery_x509::ocsp::{CertIdHash, OcspResponse};

use super::*;
use crate::testing::{EPOCH, World};

fn responder(world: &World, signer: Arc<dyn Signer>) -> Arc<OcspResponder> {
    let responder = OcspResponder::new(world.ledger.clone(), world.clock.clone(), Duration::from_secs(3600));
    responder.add_issuer(EPOCH, &world.issuer);
    responder.use_credential(EPOCH, ResponderCredential::of_issuer(&world.issuer, signer));
    Arc::new(responder)
}

fn request(world: &World, hash: CertIdHash, serials: &[SerialNumber], nonce: Option<&[u8]>) -> Vec<u8> {
    let serials: Vec<&[u8]> = serials.iter().map(|serial| serial.as_bytes().as_slice()).collect();
    OcspRequest::to_der(&IssuerHashes::of(&world.issuer), hash, &serials, nonce)
}

/// The status as a client that verifies everything takes it.
fn status_in(answer: &OcspAnswer, world: &World, serial: SerialNumber) -> CertificateStatus {
    match OcspResponse::from_der(&answer.der).unwrap() {
        OcspResponse::Error(error) => panic!("{error}"),
        OcspResponse::Basic(basic) => {
            basic.verified_status(&world.issuer, serial.as_bytes(), None, world.clock.now()).unwrap()
        }
    }
}

fn error_in(answer: &OcspAnswer) -> Option<OcspError> {
    match OcspResponse::from_der(&answer.der).unwrap() {
        OcspResponse::Error(error) => Some(error),
        OcspResponse::Basic(_) => None,
    }
}

fn counts(responder: &OcspResponder) -> [u64; 3] {
    let counts = responder.counts();
    [&counts.kept, &counts.signed, &counts.shed].map(|count| count.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_given_again_until_the_certificate_stands_otherwise() {
    let world = World::new().await;
    let [serial, other] = [world.issue(0).await, world.issue(1).await];
    let responder = responder(&world, Arc::clone(&world.signer));
    let ask = request(&world, CertIdHash::Sha1, &[serial], None);
    let first = responder.answer(&ask).await;
    assert_eq!(status_in(&first, &world, serial), CertificateStatus::Good);
    assert_eq!(responder.answer(&ask).await.der, first.der);
    assert_eq!(counts(&responder), [1, 1, 0]);

    // Something else changed: the answer is found to be right still.
    world.revoke(other, RevocationReason::Superseded).await;
    assert_eq!(responder.answer(&ask).await.der, first.der);
    assert_eq!(counts(&responder), [2, 1, 0]);

    world.revoke(serial, RevocationReason::KeyCompromise).await;
    let answer = responder.answer(&ask).await;
    let revoked =
        CertificateStatus::Revoked { at: world.clock.now(), reason: RevocationReason::KeyCompromise };
    assert_eq!(status_in(&answer, &world, serial), revoked);
    assert_eq!(counts(&responder), [2, 2, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_after_the_acknowledgement_says_good() {
    let world = Arc::new(World::new().await);
    let responder = responder(&world, Arc::clone(&world.signer));
    for counter in 0..50 {
        let serial = world.issue(counter).await;
        let ask = request(&world, CertIdHash::Sha256, &[serial], None);
        assert_eq!(status_in(&responder.answer(&ask).await, &world, serial), CertificateStatus::Good);
        let asking = {
            let (responder, ask) = (Arc::clone(&responder), ask.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    responder.answer(&ask).await;
                }
            })
        };
        world.revoke(serial, RevocationReason::KeyCompromise).await;
        let status = status_in(&responder.answer(&ask).await, &world, serial);
        assert!(matches!(status, CertificateStatus::Revoked { .. }), "{counter}: {status:?}");
        asking.await.unwrap();
        let status = status_in(&responder.answer(&ask).await, &world, serial);
        assert!(matches!(status, CertificateStatus::Revoked { .. }), "{counter}, later: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_signed_anew_before_they_are_old_and_when_the_clock_was_set_back() {
    let world = World::new().await;
    let serial = world.issue(0).await;
    let responder = responder(&world, Arc::clone(&world.signer));
    let ask = request(&world, CertIdHash::Sha1, &[serial], None);
    let first = responder.answer(&ask).await;
    world.clock.advance(Duration::from_secs(14 * 60));
    assert_eq!(responder.answer(&ask).await.der, first.der);
    world.clock.advance(Duration::from_secs(2 * 60));
    let second = responder.answer(&ask).await;
    assert_ne!(second.der, first.der);
    world.clock.set(crate::testing::start() - Duration::from_secs(60));
    let third = responder.answer(&ask).await;
    assert_ne!(third.der, second.der);
    status_in(&third, &world, serial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonces_of_1_to_128_bytes_are_repeated_and_others_are_malformed() {
    let world = World::new().await;
    let serial = world.issue(0).await;
    let responder = responder(&world, Arc::clone(&world.signer));
    for length in [1, 32, 128] {
        let nonce = vec![7; length];
        let answer = responder.answer(&request(&world, CertIdHash::Sha256, &[serial], Some(&nonce))).await;
        assert!(answer.shared.is_none());
        let OcspResponse::Basic(basic) = OcspResponse::from_der(&answer.der).unwrap() else {
            panic!("{length}")
        };
        assert_eq!(basic.nonce(), Some(nonce.as_slice()));
    }
    for length in [0, 129] {
        let ask = request(&world, CertIdHash::Sha256, &[serial], Some(&vec![7; length]));
        assert_eq!(error_in(&responder.answer(&ask).await), Some(OcspError::MalformedRequest), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_issued_here_is_never_good() {
    let world = World::new().await;
    let serial = world.issue(0).await;
    let responder = responder(&world, Arc::clone(&world.signer));
    let unissued = SerialNumber::compose(EPOCH, 1, [7; 8]).unwrap();
    let other_random = SerialNumber::compose(EPOCH, 0, [8; 8]).unwrap();
    let of_another = SerialNumber::compose(IssuerEpoch(2), 0, [7; 8]).unwrap();
    for asked in [&[unissued][..], &[other_random], &[of_another], &[serial, unissued], &[serial, of_another]]
    {
        let answer = responder.answer(&request(&world, CertIdHash::Sha1, asked, None)).await;
        assert_eq!(error_in(&answer), Some(OcspError::Unauthorized), "{asked:?}");
        assert!(answer.shared.is_none());
    }
}

/// A key that takes its time, as one in a token does.
#[derive(Debug)]
struct Slow(Arc<dyn Signer>);

impl Signer for Slow {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        std::thread::sleep(Duration::from_millis(200));
        self.0.sign(message)
    }

    fn custody(&self) -> Custody {
        Custody::Pkcs11
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_too_many_wait_for_a_slow_key_the_others_are_told_to_try_later() {
    let world = World::new().await;
    let serial = world.issue(0).await;
    let slow = Arc::new(Slow(Arc::clone(&world.signer)));
    let responder = OcspResponder {
        queue: Arc::new(Queue::new(1, 2)),
        ..Arc::try_unwrap(responder(&world, slow)).unwrap()
    };
    let responder = Arc::new(responder);
    let asking = (0..8_u8).map(|number| {
        let ask = request(&world, CertIdHash::Sha1, &[serial], Some(&[number]));
        let responder = Arc::clone(&responder);
        tokio::spawn(async move { error_in(&responder.answer(&ask).await) })
    });
    let asking: Vec<_> = asking.collect();
    let mut answers = Vec::new();
    for one in asking {
        answers.push(one.await.unwrap());
    }
    let shed = answers.iter().filter(|answer| **answer == Some(OcspError::TryLater)).count();
    assert_eq!((shed, answers.iter().flatten().count()), (5, 5), "{answers:?}");
    assert_eq!(counts(&responder), [0, 3, 5]);
    // Nobody waits any more, so everybody is served again.
    let ask = request(&world, CertIdHash::Sha1, &[serial], Some(&[9]));
    assert_eq!(error_in(&responder.answer(&ask).await), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_credential_in_force_the_answer_is_to_try_later() {
    let world = World::new().await;
    let serial = world.issue(0).await;
    let responder = responder(&world, Arc::clone(&world.signer));
    let mut credential = ResponderCredential::of_issuer(&world.issuer, Arc::clone(&world.signer));
    credential.not_after = world.clock.now();
    responder.use_credential(EPOCH, credential);
    let answer = responder.answer(&request(&world, CertIdHash::Sha1, &[serial], None)).await;
    assert_eq!(error_in(&answer), Some(OcspError::TryLater));
}
