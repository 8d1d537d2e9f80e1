//! The cost of the proxies at an API server.

#[path = "../benches/scale/lib.rs"]
mod scale;

/// The short form of `make bench-scale`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn proxies_cost_the_api_server_no_more_than_a_multiple_of_kube_proxies() -> anyhow::Result<()> {
    let table = scale::measure(&scale::Size {
        proxies: 20,
        services: 40,
        endpoints: 10,
        networks: 5,
        changes: 20,
    })
    .await?;
    println!("{table}");
    assert_eq!(table.exceeded(), Vec::<String>::new(), "\n{table}");
    Ok(())
}
