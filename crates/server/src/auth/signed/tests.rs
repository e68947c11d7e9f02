//! Requests that the real SDK sent, with both generations of its HTTP library, and what becomes of them when somebody
//! changes something on the way.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::*;

const SECRET: &str = "s3cr3t";
const RECORDED: &str = include_str!("../../../tests/data/speedpix_requests.jsonl");

struct Request {
    library: String,
    step: String,
    path: String,
    headers: HeaderMap,
    body: String,
}

impl Request {
    fn recorded() -> impl Iterator<Item = Request> {
        RECORDED.lines().map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            let pairs = row["headers"].as_object().unwrap().iter().map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value.as_str().unwrap()).unwrap())
            });
            Request {
                library: text("library"),
                step: text("step"),
                path: text("path"),
                headers: pairs.collect(),
                body: text("body"),
            }
        })
    }

    fn first(step: &str) -> Request {
        Request::recorded().find(|request| request.step == step).unwrap()
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, value.parse().unwrap());
    }

    fn now(&self) -> Timestamp {
        let at = self.headers["x-ca-timestamp"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap_or(0);
        Timestamp::from_millis(at)
    }

    fn verify(&self, now: Timestamp, digest: BodyDigest, prefix: &str) -> Result<(), SignatureError> {
        self.verify_with(&Nonces::default(), now, digest, prefix)
    }

    fn verify_with(
        &self,
        nonces: &Nonces,
        now: Timestamp,
        digest: BodyDigest,
        prefix: &str,
    ) -> Result<(), SignatureError> {
        let (path, query) = self
            .path
            .split_once('?')
            .map_or((self.path.as_str(), None), |(p, q)| (p, Some(q)));
        let signed = Signed {
            method: "POST",
            path,
            query,
            headers: &self.headers,
        };
        let verified = signed.verify(SECRET, nonces, now, prefix)?;
        verified.check_body(self.body.as_bytes(), digest)?;
        nonces.take(&verified.nonce, now)
    }
}

#[test]
fn every_recorded_request_verifies_but_the_one_that_the_sdk_itself_spoils() {
    let mut seen = [0, 0];
    for request in Request::recorded() {
        let verified = request.verify(request.now(), BodyDigest::Tolerant, "/prefix");
        let spoilt = request.step == "post_content_type_override";
        // That one sends another Accept than it signed, which only `client.post(headers=…)` does.
        assert_eq!(
            verified.is_err(),
            spoilt,
            "{} {}: {verified:?}",
            request.library,
            request.step
        );
        seen[usize::from(request.library.contains("0.27"))] += 1;
    }
    assert!(seen[0] > 100 && seen[1] > 100, "{seen:?}");
}

#[test]
fn strictly_only_bodies_that_were_sent_as_signed_fit() {
    for request in Request::recorded().filter(|r| r.step != "post_content_type_override") {
        let verified = request.verify(request.now(), BodyDigest::Strict, "/prefix");
        let has_digest = request.headers.contains_key("content-md5");
        let rewritten = request.library.contains("0.27") && has_digest;
        assert_eq!(
            verified,
            if rewritten {
                Err(SignatureError::InvalidContentMd5)
            } else {
                Ok(())
            },
            "{} {}",
            request.library,
            request.step
        );
    }
}

#[test]
fn the_golden_vectors_of_the_reference_verify() {
    // Method and headers as the reference prints them; the second is the request of its first section.
    let vectors = [
        (
            r#"{"taskId":"t_1"}"#,
            "54",
            "1795194954841",
            "7c47544a-3caa-42c0-8a69-9edfc2d6b99a",
            "9129tvZRndBXL+i9MtJ2SQ==",
            "dUgrOwNBnGgkLQNF3Rl3pzhW0SKfHdJTtwgH6o3sM0s=",
        ),
        (
            "{}",
            "59",
            "1795194959099",
            "348d7834-b61e-45c0-8060-50a438ad410c",
            "",
            "7JdBkCsdqt6c6zFp3iPAkw2n04Bj0Aj1dSuj3C7VRbA=",
        ),
    ];
    for (body, second, at, nonce, md5, signature) in vectors {
        let mut request = Request::first("run_basic");
        request.path = "/scc/comfy_get_progress".to_owned();
        request.body = body.to_owned();
        request.set("date", &format!("Fri, 20 Nov 2026 17:15:{second} GMT+00:00"));
        request.set("x-ca-timestamp", at);
        request.set("x-ca-nonce", nonce);
        request.set("x-ca-signature", signature);
        match md5 {
            "" => drop(request.headers.remove("content-md5")),
            md5 => request.set("content-md5", md5),
        }
        assert_eq!(
            request.verify(request.now(), BodyDigest::Strict, ""),
            Ok(()),
            "{body}"
        );
    }
    let first = Request::first("run_basic");
    assert_eq!(
        first.headers["x-ca-signature"],
        "2BA9J1HfjQe0+d5KCfotQg7neyn2ssLAHVqJ5ZOYSoQ="
    );
    assert_eq!(first.verify(first.now(), BodyDigest::Strict, ""), Ok(()));
}

#[test]
fn what_is_wrong_is_told_in_the_order_of_the_reference() {
    let good = || Request::first("run_basic");
    let now = good().now();
    let refused = |request: &Request, now| request.verify(now, BodyDigest::Tolerant, "").unwrap_err();
    let mut nothing = good();
    nothing.headers.clear();
    assert_eq!(refused(&nothing, now), SignatureError::InvalidAppKey);
    nothing.set("x-ca-key", "ak1");
    assert_eq!(refused(&nothing, now), SignatureError::EmptySignature);
    nothing.set("x-ca-signature", "AAAA");
    assert_eq!(refused(&nothing, now), SignatureError::InvalidTimestamp);
    nothing.set("x-ca-timestamp", "yesterday");
    assert_eq!(refused(&nothing, now), SignatureError::InvalidTimestamp);
    let minutes = |n: i64| Timestamp::from_millis(now.as_millis() + n * 60_000);
    assert_eq!(good().verify(minutes(15), BodyDigest::Tolerant, ""), Ok(()));
    for off in [16, -16] {
        assert!(matches!(
            refused(&good(), minutes(off)),
            SignatureError::TimestampExpired { .. }
        ));
    }
    let mut no_nonce = good();
    no_nonce.headers.remove("x-ca-nonce");
    assert_eq!(refused(&no_nonce, now), SignatureError::EmptyNonce);
    for (header, value) in [
        ("x-ca-signature", "AAAA"),
        ("x-ca-nonce", "another"),
        ("date", "Fri, 20 Nov 2026 17:15:55 GMT+00:00"),
        ("content-md5", "AAAA"),
        ("x-ca-signature-method", "HmacMD5"),
    ] {
        let mut changed = good();
        changed.set(header, value);
        let error = refused(&changed, now);
        let SignatureError::InvalidSignature { string_to_sign } = &error else {
            panic!("{header}: {error:?}")
        };
        assert!(
            string_to_sign.starts_with("POST\napplication/json; charset=utf-8\n"),
            "{string_to_sign}"
        );
        assert!(string_to_sign.ends_with("\n/scc/comfy_prompt"));
        assert!(error.to_string().contains("`POST#application/json") && !error.to_string().contains(SECRET));
    }
    let mut other_path = good();
    other_path.path = "/scc/comfy_get_result".to_owned();
    assert!(matches!(
        refused(&other_path, now),
        SignatureError::InvalidSignature { .. }
    ));
    let mut tampered = good();
    tampered.body = tampered.body.replace("\"n\":1", "\"n\":2");
    assert_eq!(refused(&tampered, now), SignatureError::InvalidContentMd5);
}

#[test]
fn a_request_counts_once_and_nobody_without_the_secret_uses_it_up() {
    let (nonces, request) = (Nonces::default(), Request::first("run_basic"));
    let verify = |request: &Request| request.verify_with(&nonces, request.now(), BodyDigest::Tolerant, "");
    let mut forged = Request::first("run_basic");
    forged.set("x-ca-signature", "AAAA");
    assert!(verify(&forged).is_err());
    let mut tampered = Request::first("run_basic");
    tampered.body.push('x');
    assert!(verify(&tampered).is_err());
    assert_eq!(verify(&request), Ok(()));
    assert_eq!(verify(&request), Err(SignatureError::NonceUsed));
}

#[test]
fn the_older_method_signs_as_well() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut request = Request::first("run_basic");
    request.set("x-ca-signature-method", "HmacSHA1");
    let error = request
        .verify(request.now(), BodyDigest::Tolerant, "")
        .unwrap_err();
    let SignatureError::InvalidSignature { string_to_sign } = error else {
        panic!()
    };
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, string_to_sign.as_bytes());
    request.set("x-ca-signature", &STANDARD.encode(tag));
    assert_eq!(request.verify(request.now(), BodyDigest::Tolerant, ""), Ok(()));
}

#[test]
fn a_java_client_that_sends_another_type_than_it_signed_is_understood() {
    let mut request = Request::first("run_basic");
    request.set("content-type", "application/json");
    assert_eq!(request.verify(request.now(), BodyDigest::Tolerant, ""), Ok(()));
}

#[tokio::test]
async fn large_bodies_are_judged_beside_the_runtime_and_before_the_nonce_is_used_up() {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use base64::{Engine, engine::general_purpose::STANDARD};
    use md5::{Digest, Md5};

    let body = bytes::Bytes::from(vec![b'x'; crate::beside::IN_PLACE_BYTES + 1]);
    let verified = |md5: &str| Verified {
        nonce: Nonce::of("ak", "n"),
        good_until: Timestamp::ZERO,
        content_md5: Some(md5.to_owned()),
    };
    let auth = crate::auth::tests::state(crate::auth::tests::rules(true), crate::auth::Keyring::default());
    let pieces = Arc::new(AtomicU32::new(0));
    let count = pieces.clone();
    let meanwhile: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let judge = async {
        let tampered = verified("AAAA");
        assert_eq!(
            auth.admit(&tampered, &body).await,
            Err(SignatureError::InvalidContentMd5)
        );
        let right = verified(&STANDARD.encode(Md5::digest(&body)));
        assert_eq!(auth.admit(&right, &body).await, Ok(()));
        assert_eq!(auth.admit(&right, &body).await, Err(SignatureError::NonceUsed));
    };
    crate::beside::tests::MEANWHILE.scope(meanwhile, judge).await;
    assert_eq!(pieces.load(Ordering::SeqCst), 3);
}
