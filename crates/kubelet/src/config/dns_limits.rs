//! How much a resolver file may name.
//!
//! Source: `pkg/kubelet/network/dns/dns.go` (`formDNSNameserversFitsLimits`, `formDNSSearchFitsLimits`).

use super::Resolver;

/// Servers that a resolver asks.
const SERVERS_MAX: usize = 3;
/// Search domains.
const SEARCHES_MAX: usize = 32;
/// Bytes of all search domains with the spaces between them.
const SEARCH_BYTES_MAX: usize = 2048;
/// The longest domain: some resolvers end their program over a longer one.
const DOMAIN_BYTES_MAX: usize = 253;

/// Cuts the settings to what fits; upstream's words for what was left out.
pub fn fit(resolver: &mut Resolver) -> Vec<String> {
    let mut told = Vec::new();
    if resolver.servers.len() > SERVERS_MAX {
        resolver.servers.truncate(SERVERS_MAX);
        told.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            resolver.servers.join(" ")
        ));
    }
    let before = resolver.searches.len();
    resolver.searches.truncate(SEARCHES_MAX);
    resolver.searches.retain(|search| search.len() <= DOMAIN_BYTES_MAX);
    while resolver.searches.join(" ").len() > SEARCH_BYTES_MAX {
        resolver.searches.pop();
    }
    if resolver.searches.len() < before {
        told.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            resolver.searches.join(" ")
        ));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told() {
        let texts = |count: usize, length: usize| vec!["s".repeat(length); count];
        for (servers, searches, expect, told) in [
            (3, texts(32, 3), (3, 32), 0),
            (4, texts(32, 3), (3, 32), 1),
            (1, texts(33, 3), (1, 32), 1),
            (1, texts(2, 254), (1, 0), 1),
            (4, texts(20, 200), (3, 10), 2),
        ] {
            let mut resolver = Resolver {
                servers: texts(servers, 7),
                searches,
                options: Vec::new(),
            };
            let words = fit(&mut resolver);
            assert_eq!((resolver.servers.len(), resolver.searches.len()), expect);
            assert_eq!(words.len(), told, "{words:?}");
        }
    }
}
