//! OpenAPI documents and aggregated discovery: encodings and what a client keeps of them.
//!
//! Owns: nothing but requests.
//! Called by: the test harness.
//! Never: reads a schema; `minik_api::openapi` is tested for that.

use http_body_util::BodyExt;

use crate::server::Server;

/// Code, media type, tag and bytes of an answer.
async fn ask(server: &Server, path: &str, headers: &[(&str, &str)]) -> (u16, String, String, Vec<u8>) {
    let response = server.0.handle(Server::request("GET", path, headers, "")).await;
    let said = |name: &str| response.headers().get(name).map_or("", |v| v.to_str().expect("text")).to_string();
    let (code, media, tag) = (response.status().as_u16(), said("content-type"), said("etag"));
    (code, media, tag, response.into_body().collect().await.expect("a body").to_bytes().to_vec())
}

#[tokio::test]
async fn the_old_document_comes_as_json_and_as_protobuf_under_one_tag() {
    let server = Server::start().await;
    let (code, media, tag, json) = ask(&server, "/openapi/v2", &[]).await;
    assert_eq!((code, media.as_str(), &json[..16]), (200, "application/json", &b"{\"swagger\":\"2.0\""[..]));
    let kubectl = ("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    let (code, media, same, protobuf) = ask(&server, "/openapi/v2", &[kubectl]).await;
    assert_eq!((code, media.as_str()), (200, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"));
    assert_eq!((&protobuf[..5], &same), (&b"\x0a\x032.0"[..], &tag));
    assert_eq!(ask(&server, "/openapi/v2", &[kubectl, ("if-none-match", &tag)]).await.0, 304);
    assert_eq!(ask(&server, "/openapi/v2", &[("accept", "application/yaml")]).await.0, 406);
    assert_eq!(ask(&server, "/openapi/v2/", &[]).await.0, 404);
}

#[tokio::test]
async fn a_document_is_asked_for_by_the_hash_it_has_now() {
    let server = Server::start().await;
    let index = server.get("/openapi/v3").await;
    assert_eq!(index.headers["content-type"], "text/plain; charset=utf-8");
    let url = index.body["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL").to_string();
    let answer = server.get(&url).await;
    assert_eq!((answer.code, answer.headers["cache-control"].to_str().expect("text")), (200, "public, immutable"));
    let hash = url.split_once("hash=").expect("a hash").1;
    assert_eq!(answer.headers["etag"], format!("\"{hash}\""));
    assert_eq!(ask(&server, &url, &[("if-none-match", &format!("\"{hash}\""))]).await.0, 304);
    let old = server.get("/openapi/v3/apis/apps/v1?hash=OLD").await;
    assert_eq!((old.code, old.headers["location"].to_str().expect("text")), (301, url.as_str()));
    assert_eq!(ask(&server, "/openapi/v3/none", &[]).await.0, 404);
    assert_eq!(ask(&server, "/openapi/v3/api/v1", &[("accept", "text/html")]).await.0, 406);
}

/// kubectl checks with it at each write whether the server can validate fields.
#[tokio::test]
async fn a_document_of_a_group_comes_as_protobuf_too() {
    let server = Server::start().await;
    let path = "/openapi/v3/apis/apps/v1";
    let (_, _, tag, json) = ask(&server, path, &[]).await;
    for version in ["v3@v1.0", "v3.v1.0"] {
        let wanted = format!("application/com.github.proto-openapi.spec.{version}+protobuf");
        let (code, media, same, protobuf) = ask(&server, path, &[("accept", &wanted)]).await;
        assert_eq!((code, media.as_str()), (200, "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"));
        assert_eq!((&protobuf[..7], &same), (&b"\x0a\x053.0.0"[..], &tag));
        let document = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(protobuf, minik_api::openapi::protobuf_v3(&document));
    }
}

#[tokio::test]
async fn a_document_says_since_when_it_is_what_it_is() {
    let server = Server::start().await;
    let path = "/openapi/v3/apis/apps/v1";
    let answer = server.get(path).await;
    let since = answer.headers["last-modified"].to_str().expect("text").to_string();
    assert_eq!(server.get(path).await.headers["last-modified"].to_str().expect("text"), since);
    assert_eq!(ask(&server, path, &[("if-modified-since", &since)]).await.0, 304);
    assert_eq!(ask(&server, path, &[("if-modified-since", "Mon, 02 Jan 2006 15:04:05 GMT")]).await.0, 200);
    let other_tag = [("if-modified-since", since.as_str()), ("if-none-match", "\"OLD\"")];
    assert_eq!(ask(&server, path, &other_tag).await.0, 200);
}

#[tokio::test]
async fn aggregated_discovery_has_every_encoding() {
    let server = Server::start().await;
    let form = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let mut tags = Vec::new();
    for (encoding, begin) in [
        ("application/json", &b"{\"kind\":\"APIGroupDiscoveryList\""[..]),
        ("application/yaml", b"apiVersion: apidiscovery.k8s.io/v2\n"),
        ("application/vnd.kubernetes.protobuf", b"k8s\0"),
    ] {
        let wanted = format!("{encoding}{form}");
        let (code, media, tag, bytes) = ask(&server, "/apis", &[("accept", &wanted)]).await;
        assert_eq!((code, media), (200, wanted));
        assert!(bytes.starts_with(begin), "{encoding}: {}", String::from_utf8_lossy(&bytes[..60]));
        tags.push(tag);
    }
    assert!(tags.iter().all(|tag| *tag == tags[0] && tag.len() == 130), "{tags:?}");
}
