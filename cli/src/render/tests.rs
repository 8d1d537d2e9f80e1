use super::*;
use crate::chain::{Chain, Link, Topic};
use crate::facts::{ReadError, Right};
use crate::situations::{Cause, Values};
use api::ObjectName;

fn explanation() -> Explanation {
    let values = Values::default()
        .and("namespace", "shop")
        .and("name", "web")
        .and("network", "shop/macvlan1");
    let mut chain = Chain::default();
    chain.push([
        Link::good(Topic::Service, "shop/web"),
        Cause::NoPodsAttached
            .broken(&values)
            .with(["seen on: pod web-1".to_owned()]),
    ]);
    Explanation {
        service: ObjectName::new("shop", "web"),
        from: None,
        chain,
        read_errors: vec![ReadError::Forbidden(Right {
            verb: "list",
            resource: "nodes".into(),
            namespace: None,
        })],
    }
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn a_chain_is_a_line_per_link_with_the_remedy_below() {
    let text = plain(&explanation().text());
    let want = "\
Service shop/web

✓ service      shop/web
✗ pods         no selected pod is attached to network shop/macvlan1
               seen on: pod web-1
               → Add the network to the annotation k8s.v1.cni.cncf.io/networks of the pod template, or correct the Service's annotation
                 $ kubectl -n shop get pods -o custom-columns='NAME:.metadata.name,NETWORKS:.metadata.annotations.k8s\\.v1\\.cni\\.cncf\\.io/networks'

broken at pods: NoPodsAttached; not looked at: slices, client, proxy, rules

Not read:
  no permission to list nodes in the whole cluster (kubectl auth can-i list nodes -A)
";
    assert_eq!(text, want);
}

#[test]
fn json_has_verdict_and_cause() {
    let value = explanation().value();
    assert_eq!(
        (value["verdict"].as_str(), value["cause"].as_str()),
        (Some("broken"), Some("NoPodsAttached"))
    );
    assert_eq!(value["links"][1]["topic"], "pods");
    assert_eq!(
        value["notRead"][0],
        "no permission to list nodes in the whole cluster"
    );
}

#[test]
fn the_outcome_is_the_exit_code() {
    let mut explanation = explanation();
    assert_eq!(explanation.outcome().code(), 1);
    explanation.chain.links.truncate(1);
    assert_eq!(explanation.outcome().code(), 0);
    explanation.chain.links = vec![Link::unknown(
        Topic::Service,
        "no permission to get services in namespace shop",
    )];
    assert_eq!(explanation.outcome().code(), 2);
}

#[test]
fn columns_are_aligned_and_lines_have_no_trailing_space() {
    let text = table::table(
        &["NAME", "N"],
        [
            vec!["a-long-name".to_owned(), "1".to_owned()],
            vec!["b".to_owned(), "22".to_owned()],
        ],
    );
    assert_eq!(text, "NAME         N\na-long-name  1\nb            22\n");
}
