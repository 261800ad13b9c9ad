use std::path::Path;

use super::*;

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn reference(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../ca-config/profiles/{name}.toml"));
    std::fs::read_to_string(path).unwrap()
}

fn read(text: &str) -> Result<Profile, ProfileError> {
    Profile::from_toml(text, &domain())
}

fn refusals_of(profile: &Profile, names: &[&str]) -> Vec<NameRefusal> {
    let names: Vec<SubjectName> = names.iter().map(|name| name.parse().unwrap()).collect();
    profile.refusals(&names)
}

#[test]
fn every_reference_profile_loads_under_its_file_name() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ca-config/profiles");
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        texts.push((
            path.file_stem().unwrap().to_str().unwrap().to_owned(),
            std::fs::read_to_string(&path).unwrap(),
        ));
    }
    let profiles =
        Profiles::from_texts(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())), &domain())
            .unwrap();
    for (stem, text) in &texts {
        let profile = profiles.named(stem).expect("the profile is named like its file");
        assert_eq!(profile.text(), text);
        assert_eq!(profile.hash(), Digest::of(text.as_bytes()));
    }
    for name in ["workload", "server", "client", "device", "node", "operator", "ocsp", "issuer"] {
        assert!(profiles.named(name).is_some(), "{name}");
    }
    assert_eq!(profiles.iter().count(), texts.len());
}

#[test]
fn the_workload_profile_says_what_the_design_says() {
    let workload = read(&reference("workload")).unwrap();
    assert_eq!(workload.lifetime().default, Duration::from_secs(3600));
    assert_eq!(workload.lifetime().max, Duration::from_secs(86_400));
    assert_eq!(workload.lifetime().backdate, Duration::from_secs(60));
    assert_eq!(workload.subject(), SubjectForm::Empty);
    assert!(workload.requires_owner());
    assert!(!workload.is_authority());
    let issuer = read(&reference("issuer")).unwrap();
    assert_eq!(issuer.authority().unwrap().basic_constraints.path_length, Some(0));
    assert_eq!(issuer.lifetime().default, Duration::from_secs(90 * 86_400));
}

#[test]
fn names_are_held_to_forms_and_patterns() {
    let workload = read(&reference("workload")).unwrap();
    assert_eq!(
        refusals_of(&workload, &["spiffe://example.org/web", "dns:web.example.org", "ip:10.0.0.1"]),
        []
    );
    for (names, expected) in [
        (&["dns:web.example.org"][..], "demands a name of the form uri"),
        (&["spiffe://other.org/web"], "allows spiffe://example.org/"),
        (&["spiffe://example.org"], "allows spiffe://example.org/"),
        (&["spiffe://example.org/a", "spiffe://example.org/b"], "2 URIs"),
        (&["uri:https://example.org/a"], "SPIFFE IDs with a path only"),
        (&["spiffe://example.org/a", "dns:example.com"], "allows example.org, localhost"),
        (&["spiffe://example.org/a", "dns:badexample.org"], "allows example.org, localhost"),
        (&["spiffe://example.org/a", "dns:*.example.org"], "no wildcards"),
        (&["spiffe://example.org/a", "ip:8.8.8.8"], "allows 10.0.0.0/8"),
        (&["spiffe://example.org/a", "ip:::ffff:8.8.8.8"], "allows 10.0.0.0/8"),
        (&["spiffe://example.org/a", "email:a@example.org"], "no names of this form"),
        (&["spiffe://example.org/a", "dns:a.example.org", "dns:a.example.org"], "given twice"),
    ] {
        let refusals = refusals_of(&workload, names);
        assert_eq!(refusals.len(), 1, "{names:?}: {refusals:?}");
        assert!(refusals[0].to_string().contains(expected), "{names:?}: {}", refusals[0]);
    }
    let many: Vec<String> = (0..17).map(|n| format!("dns:{n}.a.example.org")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many[0] = "spiffe://example.org/web";
    assert!(matches!(refusals_of(&workload, &many)[..], [NameRefusal::TooMany { count: 17, limit: 16 }]));
}

#[test]
fn operators_are_named_below_their_own_path() {
    let operator = read(&reference("operator")).unwrap();
    assert_eq!(refusals_of(&operator, &["spiffe://example.org/operator/ada"]), []);
    assert_eq!(refusals_of(&operator, &["spiffe://example.org/operators/ada"]).len(), 1);
    assert_eq!(refusals_of(&operator, &["spiffe://example.org/web"]).len(), 1);
    let issuer = read(&reference("issuer")).unwrap();
    assert_eq!(refusals_of(&issuer, &["spiffe://example.org"]), []);
    assert_eq!(refusals_of(&issuer, &["spiffe://example.org.evil"]).len(), 1);
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = reference("workload")
        .replace("name = \"workload\"", "name = \"Work Load\"")
        .replace("default = \"1h\"", "default = \"forty\"")
        .replace("\"p384\"", "\"dsa\"")
        .replace("\"client-auth\"", "\"time-travel\"")
        .replace("networks = [\"10.0.0.0/8\"", "networks = [\"10.0.0.1/8\"")
        .replace("AL0", "AL9");
    let fields: Vec<String> =
        read(&text).unwrap_err().problems.into_iter().map(|problem| problem.field).collect();
    for field in [
        "name",
        "lifetime.default",
        "keys.algorithms",
        "keys.extended_usage",
        "names.ip.networks",
        "minimum_assurance",
    ] {
        assert!(fields.iter().any(|found| found == field), "{field}: {fields:?}");
    }
}

#[test]
fn refuses_what_makes_no_sense_together() {
    for (profile, from, to, field) in [
        ("workload", "renewable = true", "renewable = true\nunknown = 1", ""),
        ("workload", "default = \"1h\"", "default = \"25h\"", "lifetime"),
        ("workload", "min = \"5m\"", "min = \"1s\"", "lifetime.min"),
        ("workload", "backdate = \"60s\"", "backdate = \"2d\"", "lifetime.backdate"),
        ("workload", "max = 16", "max = 0", "names.max"),
        ("workload", "max = 16", "max = 101", "names.max"),
        ("workload", "kind = \"spiffe\"", "kind = \"any\"", "names.uri"),
        ("workload", "required = [\"uri\"]", "required = []", "names.required"),
        ("workload", "required = [\"uri\"]", "required = [\"uri\", \"email\"]", "names.required"),
        ("workload", "required = [\"uri\"]", "required = [\"uri\", \"face\"]", "names.required"),
        ("workload", "{trust-domain}/", "{domain}/", "names.uri.prefixes"),
        ("workload", "spiffe://{trust-domain}/", "https://{trust-domain}/", "names.uri.prefixes"),
        ("workload", "\"localhost\"]", "\"*.example.com\"]", "names.dns.domains"),
        ("workload", "domains = [\"{trust-domain}\", \"localhost\"]", "domains = []", "names.dns.domains"),
        ("workload", "usage = [\"digital-signature\"]", "usage = []", "keys.usage"),
        ("workload", "usage = [\"digital-signature\"]", "usage = [\"key-cert-sign\"]", "keys.usage"),
        ("workload", "usage = [\"digital-signature\"]", "usage = [\"key-encipherment\"]", "keys.usage"),
        ("workload", "usage = [\"digital-signature\"]", "usage = [\"key-agreement\"]", "keys.usage"),
        (
            "workload",
            "usage = [\"digital-signature\"]",
            "usage = [\"digital-signature\", \"encipher-only\"]",
            "keys.usage",
        ),
        ("workload", "\"server-auth\", \"client-auth\"", "\"client-auth\"", "keys.extended_usage"),
        ("workload", "\"client-auth\"]", "\"client-auth\", \"ocsp-signing\"]", "keys.extended_usage"),
        ("workload", "\"p384\"", "\"p256\"", "keys.algorithms"),
        ("workload", "subject = \"empty\"", "subject = \"given\"", "subject"),
        ("workload", "subject = \"empty\"", "subject = \"none\"", "subject"),
        ("workload", "ocsp = true", "ocsp = true\nno_rev_avail = true", "status.no_rev_avail"),
        ("workload", "ocsp = true", "ocsp = true\nocsp_nocheck = true", "status.ocsp_nocheck"),
        ("ocsp", "ocsp_nocheck = true", "ocsp_nocheck = true\nocsp = true", "status.ocsp"),
        ("ocsp", "max = \"7d\"", "max = \"30d\"", "lifetime.max"),
        ("ocsp", "subject = \"given\"", "subject = \"empty\"", "subject"),
        ("issuer", "[status]", "[status]\nno_rev_avail = true", "status.no_rev_avail"),
        ("issuer", "renewable = false", "renewable = true", "renewable"),
        ("issuer", "\"key-cert-sign\", ", "", "keys.usage"),
        (
            "issuer",
            "[authority.permitted]",
            "[authority.permitted]\nuri = [\"spiffe://x\"]",
            "authority.permitted.uri",
        ),
        ("issuer", "purpose = \"issuer\"", "purpose = \"device\"", "authority"),
    ] {
        let text = reference(profile);
        let changed = text.replacen(from, to, 1);
        assert_ne!(text, changed, "{profile}: {from:?} is not in the file");
        let error = read(&changed).expect_err(&format!("{profile}: {to:?} passed"));
        assert!(error.problems.iter().any(|problem| problem.field == field), "{profile}, {to:?}: {error}");
    }
    assert!(read(&"#".repeat(Profile::MAX_TEXT + 1)).is_err());
}

#[test]
fn two_profiles_of_one_name_are_refused_and_both_files_named() {
    let text = reference("workload");
    let texts = [("a.toml", text.as_str()), ("b.toml", text.as_str()), ("c.toml", "name = 1")];
    let error = Profiles::from_texts(texts, &domain()).unwrap_err();
    let files: Vec<&str> = error.0.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["b.toml", "c.toml"]);
}

#[test]
fn validity_is_backdated_and_held_between_issuer_and_identity() {
    let workload = read(&reference("workload")).unwrap();
    let now: Timestamp = "2026-11-21T12:00:00.900Z".parse().unwrap();
    let validity = |start: &str, end: &str| {
        let validity = workload.validity(
            now,
            workload.clamp_lifetime(None),
            start.parse().unwrap(),
            end.parse().unwrap(),
        );
        (validity.not_before.to_string(), validity.not_after.to_string())
    };
    assert_eq!(
        validity("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2026-11-21T11:59:00Z".to_owned(), "2026-11-21T13:00:00Z".to_owned())
    );
    assert_eq!(
        validity("2026-11-21T11:59:30Z", "2026-11-21T12:30:00Z"),
        ("2026-11-21T11:59:30Z".to_owned(), "2026-11-21T12:30:00Z".to_owned())
    );
    assert_eq!(workload.clamp_lifetime(Some(Duration::from_secs(1))), Duration::from_secs(300));
    assert_eq!(workload.clamp_lifetime(Some(Duration::from_secs(10_000_000))), Duration::from_secs(86_400));
}
