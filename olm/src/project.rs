//! The identity of the project: `project.yaml`.
//!
//! Pure, but for [`Project::read`] and [`rewrite`](mod@rewrite).

use crate::source::{self, one};
use serde::{Deserialize, Serialize};
use std::path::Path;

mod rewrite;

pub use rewrite::{Error, files, rewrite};

/// The file, at the root of a checkout.
pub const FILE: &str = "project.yaml";

/// Domains without mail or servers: RFC 2606 and RFC 6761.
const RESERVED: [&str; 7] = [
    "example.com",
    "example.org",
    "example.net",
    "example",
    "invalid",
    "test",
    "localhost",
];

/// GitHub's addresses of commits receive no mail.
const NO_MAIL: &str = "users.noreply.github.com";

/// Names of the project and of its maintainers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// URL of the source repository.
    pub repository: String,
    /// Registry and organisation of images and charts.
    pub registry: String,
    /// Name of the publisher.
    pub authors: String,
    /// Address for security reports and for the maintainers of catalogs.
    pub email: String,
    /// GitHub accounts of the reviewers.
    pub reviewers: Vec<String>,
}

/// Replacements of single fields.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Overrides {
    /// URL of the source repository, in place of that in project.yaml
    #[arg(long, value_name = "URL")]
    pub repository: Option<String>,
    /// Registry and organisation of images and charts, such as quay.io/team
    #[arg(long)]
    pub registry: Option<String>,
    /// Name of the publisher
    #[arg(long, value_name = "NAME")]
    pub authors: Option<String>,
    /// Address for security reports and for the maintainers of catalogs
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// GitHub account of a reviewer; repeat it for several
    #[arg(long = "reviewer", value_name = "ACCOUNT")]
    pub reviewers: Vec<String>,
}

/// A field without a real value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{FILE} has the placeholder {field}: {value}; {remedy}")]
pub struct Placeholder {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What to write.
    pub remedy: &'static str,
}

impl Project {
    /// Reads `project.yaml` of the checkout at `root`.
    pub fn read(root: &Path) -> Result<Self, source::Error> {
        one(&root.join(FILE))
    }

    /// This identity with some fields replaced.
    #[must_use]
    pub fn with(&self, overrides: &Overrides) -> Self {
        let or = |new: &Option<String>, old: &String| new.as_ref().unwrap_or(old).clone();
        Self {
            repository: or(&overrides.repository, &self.repository),
            registry: or(&overrides.registry, &self.registry),
            authors: or(&overrides.authors, &self.authors),
            email: or(&overrides.email, &self.email),
            reviewers: if overrides.reviewers.is_empty() {
                self.reviewers.clone()
            } else {
                overrides.reviewers.clone()
            },
        }
    }

    /// Fields that a release must not publish.
    pub fn placeholders(&self) -> Vec<Placeholder> {
        let host = |url: &str| url.split('/').next().unwrap_or_default().to_owned();
        let domain = self.email.rsplit_once('@').map_or("", |(_, domain)| domain);
        let source = self.repository.strip_prefix("https://").unwrap_or_default();
        let fields = [
            (
                is_reserved(&host(source)),
                "repository",
                self.repository.clone(),
                "write the https URL of the source repository, or give --repository",
            ),
            (
                is_reserved(&host(&self.registry)),
                "registry",
                self.registry.clone(),
                "write a registry that clusters can pull from, or give --registry",
            ),
            (
                self.authors.trim().is_empty(),
                "authors",
                self.authors.clone(),
                "write the name of the publisher, or give --authors",
            ),
            (
                is_reserved(domain) || domain == NO_MAIL,
                "email",
                self.email.clone(),
                "write an address that receives mail, or give --email",
            ),
            (
                self.reviewers.is_empty(),
                "reviewers",
                "[]".to_owned(),
                "write the reviewers' GitHub accounts, or give --reviewer",
            ),
        ];
        let found = fields.into_iter().filter(|(is_placeholder, ..)| *is_placeholder);
        found
            .map(|(_, field, value, remedy)| Placeholder { field, value, remedy })
            .collect()
    }

    /// Files with the reviewers, by path: of Kubernetes' review automation, and of GitHub.
    pub fn reviewer_files(&self) -> [(&'static str, String); 2] {
        let list = match &self.reviewers[..] {
            [] => " []\n".to_owned(),
            names => names
                .iter()
                .fold("\n".to_owned(), |list, name| format!("{list}  - {name}\n")),
        };
        let accounts: Vec<_> = self.reviewers.iter().map(|name| format!("@{name}")).collect();
        let rule = if accounts.is_empty() {
            "# project.yaml lists no reviewer.\n".to_owned()
        } else {
            format!("* {}\n", accounts.join(" "))
        };
        [
            ("OWNERS", format!("{HEADER}approvers:{list}reviewers:{list}")),
            (".github/CODEOWNERS", format!("{HEADER}{rule}")),
        ]
    }
}

const HEADER: &str = "# Generated by `make identity` from project.yaml; do not edit.\n";

fn is_reserved(domain: &str) -> bool {
    let host = domain.split(':').next().unwrap_or_default();
    host.is_empty()
        || RESERVED.iter().any(|name| {
            host.strip_suffix(name)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn project() -> Project {
        Project {
            repository: "https://forge.acme.io/net/multus-service".to_owned(),
            registry: "registry.acme.io/net".to_owned(),
            authors: "Acme networking".to_owned(),
            email: "security@acme.io".to_owned(),
            reviewers: vec!["alice".to_owned()],
        }
    }

    #[test]
    fn values_that_reach_no_person_are_placeholders() {
        assert_eq!(project().placeholders(), []);
        let with = |overrides: Overrides| {
            let found = project().with(&overrides).placeholders();
            found
                .iter()
                .map(|placeholder| placeholder.field)
                .collect::<Vec<_>>()
        };
        for email in [
            "a@example.com",
            "a@mail.example.org",
            "a@users.noreply.github.com",
            "alice",
            "a@b.invalid",
        ] {
            let email = Some(email.to_owned());
            assert_eq!(
                with(Overrides {
                    email,
                    ..Overrides::default()
                }),
                ["email"]
            );
        }
        for registry in ["localhost:5000/x", "registry.example/x", ""] {
            let registry = Some(registry.to_owned());
            assert_eq!(
                with(Overrides {
                    registry,
                    ..Overrides::default()
                }),
                ["registry"]
            );
        }
        let repository = Some("git@forge.acme.io:net".to_owned());
        assert_eq!(
            with(Overrides {
                repository,
                ..Overrides::default()
            }),
            ["repository"]
        );
        let unowned = Project {
            reviewers: Vec::new(),
            ..project()
        };
        assert_eq!(
            unowned.placeholders()[0].to_string(),
            "project.yaml has the placeholder reviewers: []; write the reviewers' GitHub accounts, or give --reviewer"
        );
    }
}
