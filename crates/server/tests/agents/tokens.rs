//! JWT-SVIDs, verified by programs that we did not write.

use std::process::Command;

use chancery_api::{AgentJwtRequest, ProblemCode};
use chancery_types::{Claims, HumanDuration};
use data_encoding::BASE64URL_NOPAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::node::{Node, process, register, workload};
use crate::running::{Running, id, problem, skipped};

fn request(name: &str, audiences: &[&str], claims: Claims) -> AgentJwtRequest {
    let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
    AgentJwtRequest { identity: id(name), audiences, claims }
}

fn part(text: &str) -> serde_json::Value {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_has_what_the_standard_asks_for_and_verifies_with_the_published_key() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let request = request("web", &["billing", "audit"], process("1000"));
    let answer = node.client.agent_jwt(&request).await.unwrap();
    let token = answer.token.expose_secret();
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let keys = running.client(None).jwt_keys().await.unwrap();
    let [key] = keys.keys.as_slice() else { panic!("one key") };
    let (header_json, claims_json) = (part(header), part(claims));
    assert_eq!(header_json, serde_json::json!({ "alg": "ES256", "kid": key.kid, "typ": "JWT" }));
    assert_eq!((key.purpose.as_str(), key.alg.as_deref()), ("sig", Some("ES256")));
    assert_eq!(claims_json["sub"], "spiffe://example.org/web");
    assert_eq!(claims_json["aud"], serde_json::json!(["billing", "audit"]));
    let (issued, expires) = (claims_json["iat"].as_i64().unwrap(), claims_json["exp"].as_i64().unwrap());
    assert_eq!((expires - issued, expires), (300, answer.expires.seconds()));
    let configuration = running.client(None).openid_configuration().await.unwrap();
    assert_eq!(claims_json["iss"], configuration.issuer.as_str());
    assert_eq!(configuration.jwks_uri, format!("{}/keys", configuration.issuer));
    let again = node.client.agent_jwt(&request).await.unwrap();
    let name = part(again.token.expose_secret().split('.').nth(1).unwrap())["jti"].clone();
    assert!(name.is_string() && name != claims_json["jti"]);

    let coordinate =
        |text: &Option<String>| BASE64URL_NOPAD.decode(text.as_ref().unwrap().as_bytes()).unwrap();
    let point = [vec![4], coordinate(&key.x), coordinate(&key.y)].concat();
    let signed = token.rsplit_once('.').unwrap().0;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    verifier.verify(signed.as_bytes(), &signature).unwrap();
    assert!(verifier.verify(claims.as_bytes(), &signature).is_err());

    // The SPIFFE bundle has the same key under the same name.
    let bundle = running.client(None).bundle_json().await.unwrap();
    let svid_key = bundle.keys.iter().find(|one| one.purpose == "jwt-svid").unwrap();
    assert_eq!((&svid_key.kid, &svid_key.x), (&key.kid, &key.x));
    running.server.stop().await;
}

/// PyJWT takes the key from our key set by its name, and checks signature, times, issuer and audience.
const PYJWT: &str = "
import json, sys
try:
    import jwt
except ImportError:
    sys.exit(77)
keys, token, issuer = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)['kid']]
options = {'require': ['exp', 'iat', 'iss', 'sub', 'aud', 'jti']}
claims = jwt.decode(token, key.key, algorithms=['ES256'], audience='billing', issuer=issuer, options=options)
assert claims['sub'] == 'spiffe://example.org/web', claims
try:
    jwt.decode(token, key.key, algorithms=['ES256'], audience='somebody else', issuer=issuer)
    sys.exit(3)
except jwt.InvalidAudienceError:
    pass
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_verifies_with_pyjwt() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let answer = node.client.agent_jwt(&request("web", &["billing"], process("1000"))).await.unwrap();
    let keys = serde_json::to_string(&running.client(None).jwt_keys().await.unwrap()).unwrap();
    let issuer = running.client(None).openid_configuration().await.unwrap().issuer;
    let python = std::env::var("CHANCERY_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let arguments = ["-c", PYJWT, &keys, answer.token.expose_secret(), &issuer];
    match Command::new(python).args(arguments).output() {
        Ok(output) if output.status.code() == Some(77) => skipped("PyJWT", "the package is not installed"),
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => skipped("PyJWT", &error.to_string()),
    }
    running.server.stop().await;
}

#[tokio::test]
async fn tokens_are_decided_like_certificates() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    let mut brief = workload("brief", "node/a", "1000");
    brief.max_lifetime = Some(HumanDuration(std::time::Duration::from_secs(120)));
    register(&running, brief).await;
    let mut critical = workload("critical", "node/a", "1000");
    critical.sensitivity = chancery_types::Sensitivity::Critical;
    register(&running, critical).await;
    register(&running, workload("other", "node/b", "1000")).await;

    let short = node.client.agent_jwt(&request("brief", &["x"], process("1000"))).await.unwrap();
    let claims = part(short.token.expose_secret().split('.').nth(1).unwrap());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 120);

    let refused = async |name, uid| {
        let answer = node.client.agent_jwt(&request(name, &["x"], process(uid))).await;
        problem(&answer.unwrap_err()).unwrap()
    };
    assert_eq!(refused("critical", "1000").await, ProblemCode::PolicyDenied);
    assert_eq!(refused("other", "1000").await, ProblemCode::NoMatchingIdentity);
    assert_eq!(refused("brief", "0").await, ProblemCode::NoMatchingIdentity);
    crate::node::hold(&running, "brief").await;
    assert_eq!(refused("brief", "1000").await, ProblemCode::IdentityHeld);
    running.server.stop().await;
}

#[tokio::test]
async fn a_token_for_nobody_or_for_too_many_is_refused() {
    let running = Running::start().await;
    let node = Node::enrol(&running, "node/a").await;
    register(&running, workload("web", "node/a", "1000")).await;
    let long = "x".repeat(513);
    for audiences in [vec![], vec![""], vec!["a\nb"], vec![long.as_str()], vec!["a"; 17]] {
        let answer = node.client.agent_jwt(&request("web", &audiences, process("1000"))).await;
        assert_eq!(problem(&answer.unwrap_err()), Some(ProblemCode::MalformedRequest), "{audiences:?}");
    }
    let stranger = running.client(None).agent_jwt(&request("web", &["x"], process("1000"))).await;
    assert_eq!(problem(&stranger.unwrap_err()), Some(ProblemCode::CertificateRequired));
    running.server.stop().await;
}
