//! What we tell people to write must be what Ringway takes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use ringway::config::{self, Paint, Target, VerifyClient};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every ```toml block of a document, with the line it begins in.
fn toml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut open {
            None if line.trim() == "```toml" => open = Some((index + 2, String::new())),
            None => {}
            Some(_) if line.trim() == "```" => blocks.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a toml block is not closed");
    blocks
}

#[test]
fn every_file_of_configs_is_taken_without_a_word() {
    let configs = files("configs", "toml");
    let names: Vec<_> = configs
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "backend-verify-client.toml",
            "http-upstream-mtls.toml",
            "passthrough-sni.toml",
            "tcp-upstream-mtls.toml",
            "terminate-verify-client.toml",
            "zero-trust-edge.toml",
        ]
    );
    for path in &configs {
        let loaded = config::load(path);
        assert_eq!(loaded.report(Paint::Plain), "", "{}", path.display());
        assert!(loaded.plan().is_some());
    }
}

#[test]
fn every_file_of_configs_means_its_scenario() {
    let plan = |name: &str| {
        let path = root().join("configs").join(name);
        config::load(&path).into_plan().unwrap()
    };

    let tcp = plan("tcp-upstream-mtls.toml");
    let tls = tcp.upstreams[0].tls.as_ref().unwrap();
    assert!(tcp.listeners[0].tls.is_none() && tcp.upstreams[0].servers.len() == 3);
    assert!(tls.verify && tls.verify_depth == 2 && tls.session_reuse);
    assert!(tls.client_certificate.is_some() && !tls.policy.cipher_suites.is_empty());

    let backend = plan("backend-verify-client.toml");
    let tls = backend.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.verify_client, VerifyClient::Optional);

    let edge = plan("zero-trust-edge.toml");
    let tls = edge.listeners[0].tls.as_ref().unwrap();
    assert!(tls.policy.versions.tls13 && !tls.policy.versions.tls12);
    assert!(tls.crl.is_some() && tls.allow_identities.len() == 3);
    assert!(
        edge.upstreams
            .iter()
            .all(|group| group.tls.as_ref().unwrap().verify)
    );

    let terminate = plan("terminate-verify-client.toml");
    let tls = terminate.listeners[0].tls.as_ref().unwrap();
    assert_eq!(
        (tls.verify_client, tls.verify_depth),
        (VerifyClient::Required, 2)
    );
    assert!(terminate.upstreams[0].tls.is_none());

    let passthrough = plan("passthrough-sni.toml");
    let Target::Routes { routes, default } = &passthrough.listeners[0].target else {
        panic!("no routes")
    };
    assert!(passthrough.listeners[0].tls.is_none());
    assert!(routes.len() == 2 && default.is_some());
}

/// A document may show one table alone; a file needs a listener.
fn whole(mut block: String) -> String {
    if !block.contains("[[listener]]") {
        block.push_str(
            "\n[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
             [upstream.b]\nservers = [\"127.0.0.1:1\"]\n",
        );
    }
    block
}

#[test]
fn every_toml_block_of_the_docs_is_taken() {
    let mut documents = files("docs", "md");
    documents.extend(
        root()
            .join("README.md")
            .is_file()
            .then(|| root().join("README.md")),
    );
    let mut blocks = 0;
    for path in documents {
        let text = fs::read_to_string(&path).unwrap();
        for (line, block) in toml_blocks(&text) {
            let loaded = config::parse(format!("{}:{line}", path.display()), whole(block));
            let report = loaded.report(Paint::Plain);
            assert_eq!(loaded.diagnostics.errors(), 0, "{report}");
            blocks += 1;
        }
    }
    assert!(blocks > 0, "docs/config.md has examples");
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    let text = "[[listener]]\nname = \"a\"\nbind = \"unix:a.sock\"\nupstream = \"b\"\n\
                [listener.tls]\ncertificate = \"a.crt\"\nprivate_key = \"/abs/a.key\"\n\
                [upstream.b]\nservers = [\"unix:run/b.sock\"]\n";
    fs::write(&path, text).unwrap();
    let plan = config::load(&path).into_plan().unwrap();
    let pair = &plan.listeners[0].tls.as_ref().unwrap().certificates[0];
    assert_eq!(pair.certificate.value, folder.path().join("a.crt"));
    assert_eq!(pair.private_key.value, Path::new("/abs/a.key"));
    assert_eq!(
        plan.upstreams[0].servers[0].address.value.to_string(),
        format!("unix:{}", folder.path().join("run/b.sock").display())
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let latin1 = folder.path().join("latin1.toml");
    fs::write(&latin1, b"# caf\xe9\n").unwrap();
    let large = folder.path().join("large.toml");
    fs::write(&large, vec![b'#'; config::FILE_BYTES_MAX + 1]).unwrap();
    for (path, words) in [
        (folder.path().join("none.toml"), "cannot be read"),
        (folder.path().to_owned(), "name the file, not its folder"),
        (latin1, "line 1 is not UTF-8"),
        (large, "larger than 1024 KiB"),
    ] {
        let loaded = config::load(&path);
        let report = loaded.report(Paint::Plain);
        assert!(loaded.plan().is_none());
        assert!(
            report.contains(words) && report.contains("cure: "),
            "{report}"
        );
    }
}
