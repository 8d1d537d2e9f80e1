//! Formats of `/metrics`: OpenMetrics 1.0.0, or the text format of Prometheus for every other client.
//!
//! Pure. Sources: OpenMetrics 1.0.0, "Exposition Formats" of Prometheus' documentation.

mod text;

use mediatype::{MediaType, MediaTypeList, Name, ReadParams};
use prometheus_client::registry::Registry;
use std::fmt;

/// Format of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text format of Prometheus, 0.0.4.
    Text,
    /// OpenMetrics, 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format that a client prefers, by its header `Accept`. Wildcards choose none, as in Prometheus' client libraries: a
    /// client that does not know OpenMetrics gets the text format.
    pub fn accepted(accept: &str) -> Self {
        let listed = MediaTypeList::new(accept).flatten();
        let known = listed.filter_map(|media_type| Some((Self::named(&media_type)?, quality(&media_type))));
        let acceptable = known.filter(|(_, quality)| *quality > 0.0);
        // The first of those with the highest quality.
        let preferred = acceptable.reduce(|best, next| if next.1 > best.1 { next } else { best });
        preferred.map_or(Self::Text, |(format, _)| format)
    }

    /// Returns the format that a media type names. `None`: another format, or another version of these.
    fn named(media_type: &MediaType<'_>) -> Option<Self> {
        let version = media_type.get_param(VERSION);
        let version = version.as_ref().map(|version| version.unquoted_str());
        let is = |ty: &str, subty: &str| media_type.ty == *ty && media_type.subty == *subty;
        let (format, served) = if is("text", "plain") {
            (Self::Text, "0.0.4")
        } else if is("application", "openmetrics-text") {
            (Self::OpenMetrics, "1.0.0")
        } else {
            return None;
        };
        version.is_none_or(|version| version == served).then_some(format)
    }

    /// Returns the value of the header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Encodes all metrics of a registry. Exemplars are not supported.
    pub fn encode(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, registry)?;
        Ok(match self {
            Self::Text => text::from_open_metrics(&page),
            Self::OpenMetrics => page,
        })
    }
}

const VERSION: Name<'_> = Name::new_unchecked("version");
const QUALITY: Name<'_> = Name::new_unchecked("q");

/// Returns the quality of a media type, 0 to 1. An unreadable one is the lowest.
fn quality(media_type: &MediaType<'_>) -> f32 {
    let quality = media_type.get_param(QUALITY);
    quality.map_or(1.0, |quality| quality.as_str().parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::no_header("", Format::Text)]
    #[case::curl("*/*", Format::Text)]
    #[case::browser(
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        Format::Text
    )]
    #[case::prometheus_3(
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        Format::OpenMetrics
    )]
    #[case::prometheus_2(
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        Format::OpenMetrics
    )]
    #[case::protobuf_first(
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3",
        Format::Text
    )]
    #[case::without_a_version("application/openmetrics-text", Format::OpenMetrics)]
    #[case::quoted("application/openmetrics-text; version=\"1.0.0\"", Format::OpenMetrics)]
    #[case::another_version("application/openmetrics-text;version=0.0.1", Format::Text)]
    #[case::text_preferred("application/openmetrics-text;q=0.2, text/plain;q=0.3", Format::Text)]
    #[case::not_acceptable("application/openmetrics-text;q=0", Format::Text)]
    #[case::the_first_of_equals("text/plain;version=0.0.4,application/openmetrics-text", Format::Text)]
    #[case::capitals("Application/OpenMetrics-Text;Version=1.0.0", Format::OpenMetrics)]
    #[case::unreadable(";;,=,application/openmetrics-text;q=x", Format::Text)]
    fn the_format_is_that_which_the_client_prefers(#[case] accept: &str, #[case] format: Format) {
        assert_eq!(Format::accepted(accept), format);
    }
}
