//! From a query to a reply: plain functions, no socket.
//!
//! NXDOMAIN and "no data" are told apart with care: a resolver goes on to its next search suffix only after NXDOMAIN, and
//! musl stops at an empty answer. Both carry the zone's SOA, whose minimum says how long the absence may be kept.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;

use super::TTL_SECONDS;
use super::zone::{Node, Records, Zone};

/// The largest UDP answer that is not fragmented on any usual network (DNS flag day 2020).
pub const UDP_PAYLOAD_MAX: u16 = 1232;
/// What a client without EDNS takes.
const UDP_PAYLOAD_MIN: u16 = 512;
/// Aliases that are followed inside the zone; more is a loop.
const ALIASES_MAX: usize = 8;

/// What to do with a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Send this.
    Reply(Message),
    /// The name is somebody else's.
    Foreign(Message),
    /// The reply is complete but for the records of a foreign name that an alias leads to.
    ForeignAlias {
        /// The reply so far.
        reply: Message,
        /// What to ask for.
        target: Query,
    },
    /// Not a query; say nothing, or two servers would talk for ever.
    Ignore,
}

/// Answers a query. `recursion` says whether foreign names can be asked for.
pub fn answer(zone: &Zone, query: &Message, recursion: bool) -> Outcome {
    if query.metadata.message_type != MessageType::Query {
        return Outcome::Ignore;
    }
    let mut reply = reply_to(query, recursion);
    let refused = |mut reply: Message, code| {
        reply.metadata.response_code = code;
        Outcome::Reply(reply)
    };
    if query.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return refused(reply, ResponseCode::BADVERS);
    }
    if query.metadata.op_code != OpCode::Query {
        return refused(reply, ResponseCode::NotImp);
    }
    let [question] = query.queries.as_slice() else {
        return refused(reply, ResponseCode::FormErr);
    };
    if question.query_class() != DNSClass::IN {
        return refused(reply, ResponseCode::Refused);
    }
    // A transfer of the whole zone is nobody's right here.
    if matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return refused(reply, ResponseCode::Refused);
    }
    match zone.resolve(&labels(question.name())) {
        Node::Outside => Outcome::Foreign(reply),
        Node::Missing(missing_in) => {
            reply.metadata.authoritative = true;
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.authorities.extend(soa(zone, &missing_in));
            Outcome::Reply(reply)
        }
        Node::Exists(records) => {
            reply.metadata.authoritative = true;
            fill(zone, question, &records, reply)
        }
    }
}

/// The reply to a foreign name that cannot be asked for. CoreDNS without a forwarder does the same.
pub fn refuse(mut reply: Message, code: ResponseCode) -> Message {
    reply.metadata.response_code = code;
    reply
}

/// A reply to something that is not even a query: only the identifier is known.
pub fn malformed(bytes: &[u8]) -> Option<Message> {
    // A response must not be answered, whatever is wrong with it.
    if bytes.len() < 12 || bytes[2] & 0x80 != 0 {
        return None;
    }
    let identifier = u16::from_be_bytes([bytes[0], bytes[1]]);
    Some(Message::error_msg(identifier, OpCode::Query, ResponseCode::FormErr))
}

/// The wire form for UDP, with as many records as the client can take.
pub fn encode_udp(mut reply: Message, query: &Message) -> Option<Vec<u8>> {
    let offered = query.edns.as_ref().map_or(UDP_PAYLOAD_MIN, Edns::max_payload);
    let limit = usize::from(offered.clamp(UDP_PAYLOAD_MIN, UDP_PAYLOAD_MAX));
    let mut bytes = reply.to_vec().ok()?;
    if bytes.len() > limit {
        // Nobody needs the additional records; a client that misses answers is told to come back over TCP.
        reply.additionals.clear();
        bytes = reply.to_vec().ok()?;
    }
    while bytes.len() > limit {
        reply.metadata.truncation = true;
        reply.authorities.clear();
        let fitting = reply.answers.len() * limit / bytes.len();
        reply
            .answers
            .truncate(fitting.min(reply.answers.len().saturating_sub(1)));
        bytes = reply.to_vec().ok()?;
        if reply.answers.is_empty() {
            break;
        }
    }
    Some(bytes)
}

/// The labels of a name in lower case.
pub fn labels(name: &Name) -> Vec<String> {
    name.iter()
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
        .collect()
}

fn reply_to(query: &Message, recursion: bool) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = recursion;
    reply.metadata.checking_disabled = query.metadata.checking_disabled;
    reply.queries = query.queries.clone();
    if let Some(offered) = &query.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_MAX);
        edns.set_dnssec_ok(offered.flags().dnssec_ok);
        reply.set_edns(edns);
    }
    reply
}

fn fill(zone: &Zone, question: &Query, records: &Records, mut reply: Message) -> Outcome {
    let rotation = usize::from(reply.metadata.id);
    let kind = question.query_type();
    let mut owner = question.name().clone();
    let mut records = records.clone();
    // An ExternalName may lead to another Service, and that one to the next.
    for _ in 0..ALIASES_MAX {
        let Some(alias) = records.alias.clone() else { break };
        let Some(target) = name(&alias) else { break };
        reply.answers.push(Record::from_rdata(
            owner,
            TTL_SECONDS,
            RData::CNAME(CNAME(target.clone())),
        ));
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return Outcome::Reply(reply);
        }
        match zone.resolve(&labels(&target)) {
            Node::Exists(next) => records = *next,
            Node::Missing(missing_in) => {
                reply.authorities.extend(soa(zone, &missing_in));
                reply.metadata.response_code = ResponseCode::NXDomain;
                return Outcome::Reply(reply);
            }
            Node::Outside => {
                return Outcome::ForeignAlias {
                    reply,
                    target: Query::query(target, kind),
                };
            }
        }
        owner = target;
    }
    if records.alias.is_some() {
        return Outcome::Reply(refuse(reply, ResponseCode::ServFail));
    }
    let before = reply.answers.len();
    let all = kind == RecordType::ANY;
    if all || matches!(kind, RecordType::A | RecordType::AAAA) {
        let mut found: Vec<IpAddr> = records.addresses.clone();
        if !found.is_empty() {
            // Clients take the first one: let it be another one each time, as CoreDNS' loadbalance plugin does.
            let shift = rotation % found.len();
            found.rotate_left(shift);
        }
        reply.answers.extend(
            found
                .into_iter()
                .filter_map(|address| address_record(&owner, address, kind)),
        );
    }
    if all || kind == RecordType::SRV {
        services(&owner, &records, &mut reply);
    }
    if let (true, Some(text)) = (all || kind == RecordType::TXT, &records.text) {
        reply.answers.push(Record::from_rdata(
            owner.clone(),
            TTL_SECONDS,
            RData::TXT(TXT::new(vec![text.clone()])),
        ));
    }
    if all || kind == RecordType::PTR {
        let pointers = records.pointers.iter().filter_map(|pointer| name(pointer));
        reply
            .answers
            .extend(pointers.map(|target| Record::from_rdata(owner.clone(), TTL_SECONDS, RData::PTR(PTR(target)))));
    }
    if records.apex && (all || kind == RecordType::SOA) {
        reply.answers.extend(soa(zone, &records.zone));
    }
    if records.apex && (all || kind == RecordType::NS) {
        let server = format!("ns.dns.{}", zone.domain());
        if let Some(server) = name(&server) {
            reply
                .answers
                .push(Record::from_rdata(owner, TTL_SECONDS, RData::NS(NS(server.clone()))));
            let address = RData::A(A(zone.server()));
            reply.additionals.push(Record::from_rdata(server, TTL_SECONDS, address));
        }
    }
    if reply.answers.len() == before {
        reply.authorities.extend(soa(zone, &records.zone));
    }
    Outcome::Reply(reply)
}

fn services(owner: &Name, records: &Records, reply: &mut Message) {
    // RFC 2782 weights are relative; CoreDNS shares a hundred.
    let weight = (100 / records.services.len().max(1)).max(1) as u16;
    for record in &records.services {
        let Some(target) = name(&record.target) else { continue };
        let srv = SRV::new(0, weight, record.port, target.clone());
        reply
            .answers
            .push(Record::from_rdata(owner.clone(), TTL_SECONDS, RData::SRV(srv)));
        for address in &record.addresses {
            let additional = address_record(&target, *address, RecordType::ANY).expect("invariant: any type matches");
            if !reply.additionals.contains(&additional) {
                reply.additionals.push(additional);
            }
        }
    }
}

fn address_record(owner: &Name, address: IpAddr, kind: RecordType) -> Option<Record> {
    let data = match (address, kind) {
        (IpAddr::V4(address), RecordType::A | RecordType::ANY) => RData::A(A(address)),
        (IpAddr::V6(address), RecordType::AAAA | RecordType::ANY) => RData::AAAA(AAAA(address)),
        _ => return None,
    };
    Some(Record::from_rdata(owner.clone(), TTL_SECONDS, data))
}

fn soa(zone: &Zone, origin: &str) -> Option<Record> {
    // Serial and timers matter to secondaries only, and nobody can transfer this zone; the numbers are CoreDNS'.
    let server = name(&format!("ns.dns.{}", zone.domain()))?;
    let mailbox = name(&format!("hostmaster.{}", zone.domain()))?;
    let soa = SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL_SECONDS);
    Some(Record::from_rdata(name(origin)?, TTL_SECONDS, RData::SOA(soa)))
}

/// A full name from text; `None` when a label cannot stand in DNS.
fn name(text: &str) -> Option<Name> {
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ServiceWithSlices;
    use crate::dns::zone::ZoneConfig;
    use crate::views::{EndpointView, ObjectName, Protocol, ServiceKind, ServiceView, SlicePort, SliceView};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn service(name: &str, kind: ServiceKind, endpoints: u8) -> ServiceWithSlices {
        let endpoints = (0..endpoints).map(|place| EndpointView {
            addresses: vec![IpAddr::from([10, 244, 0, place + 2])],
            ready: true,
            serving: true,
            terminating: false,
            hostname: None,
            node: None,
        });
        ServiceWithSlices {
            service: Arc::new(ServiceView {
                name: ObjectName::new("default", name),
                kind,
                ports: Vec::new(),
                external_addresses: Vec::new(),
                local_only: false,
                external_local_only: false,
                affinity_seconds: None,
                foreign_proxy: false,
                health_port: None,
            }),
            slices: vec![Arc::new(SliceView {
                name: ObjectName::new("default", name),
                service: name.to_owned(),
                endpoints: endpoints.collect(),
                ports: vec![SlicePort {
                    name: "web".to_owned(),
                    protocol: Protocol::Tcp,
                    port: Some(8080),
                }],
            })],
        }
    }

    fn zone() -> Zone {
        let mut zone = Zone::new(ZoneConfig {
            domain: "cluster.local".to_owned(),
            server: Ipv4Addr::new(10, 96, 0, 10),
            networks: Vec::new(),
        });
        let external = |target: &str| ServiceKind::External(target.to_owned());
        for service in [
            service("web", ServiceKind::Cluster(vec!["10.96.0.7".parse().unwrap()]), 1),
            service("many", ServiceKind::Headless, 200),
            service("away", external("example.org"), 0),
            service("near", external("web.default.svc.cluster.local"), 0),
            service("loop", external("loop.default.svc.cluster.local"), 0),
            service("lost", external("absent.default.svc.cluster.local"), 0),
        ] {
            zone.set(&service.service.name, Some(&service));
        }
        zone
    }

    fn query(text: &str, kind: RecordType) -> Message {
        let mut query = Message::new(0, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name(text).unwrap(), kind));
        query
    }

    fn reply(text: &str, kind: RecordType) -> Message {
        match answer(&zone(), &query(text, kind), false) {
            Outcome::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn codes_answers_and_authorities() {
        let check = |text: &str, kind: RecordType, code: ResponseCode, answers: usize, authorities: usize| {
            let reply = reply(text, kind);
            let found = (
                reply.metadata.response_code,
                reply.answers.len(),
                reply.authorities.len(),
            );
            assert_eq!(found, (code, answers, authorities), "{text} {kind}");
            assert!(reply.metadata.authoritative);
        };
        let web = "web.default.svc.cluster.local";
        check(web, RecordType::A, ResponseCode::NoError, 1, 0);
        check(
            "WEB.Default.svc.CLUSTER.local",
            RecordType::A,
            ResponseCode::NoError,
            1,
            0,
        );
        check(web, RecordType::AAAA, ResponseCode::NoError, 0, 1);
        check(web, RecordType::MX, ResponseCode::NoError, 0, 1);
        check(
            "absent.default.svc.cluster.local",
            RecordType::A,
            ResponseCode::NXDomain,
            0,
            1,
        );
        check("cluster.local", RecordType::SOA, ResponseCode::NoError, 1, 0);
        check("cluster.local", RecordType::NS, ResponseCode::NoError, 1, 0);
        check(
            "near.default.svc.cluster.local",
            RecordType::A,
            ResponseCode::NoError,
            2,
            0,
        );
        check(
            "near.default.svc.cluster.local",
            RecordType::AAAA,
            ResponseCode::NoError,
            1,
            1,
        );
        check(
            "near.default.svc.cluster.local",
            RecordType::CNAME,
            ResponseCode::NoError,
            1,
            0,
        );
        check(
            "lost.default.svc.cluster.local",
            RecordType::A,
            ResponseCode::NXDomain,
            1,
            1,
        );
        check(
            "loop.default.svc.cluster.local",
            RecordType::A,
            ResponseCode::ServFail,
            ALIASES_MAX,
            0,
        );
    }

    #[test]
    fn service_records_carry_their_targets_addresses() {
        let reply = reply("_web._tcp.many.default.svc.cluster.local", RecordType::SRV);
        assert_eq!((reply.answers.len(), reply.additionals.len()), (200, 200));
    }

    #[test]
    fn foreign_names_and_aliases_are_left_to_the_caller() {
        assert!(matches!(
            answer(&zone(), &query("example.org", RecordType::A), true),
            Outcome::Foreign(_)
        ));
        match answer(&zone(), &query("away.default.svc.cluster.local", RecordType::A), true) {
            Outcome::ForeignAlias { reply, target } => {
                assert_eq!(reply.answers.len(), 1);
                assert_eq!(labels(target.name()), ["example", "org"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_a_plain_query_gets_its_code() {
        let code = |query: &Message| match answer(&zone(), query, false) {
            Outcome::Reply(reply) => reply.metadata.response_code,
            other => panic!("{other:?}"),
        };
        let mut none = query("web.default.svc.cluster.local", RecordType::A);
        none.queries.clear();
        assert_eq!(code(&none), ResponseCode::FormErr);
        let mut update = query("cluster.local", RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(code(&update), ResponseCode::NotImp);
        assert_eq!(code(&query("cluster.local", RecordType::AXFR)), ResponseCode::Refused);
        let mut version = query("cluster.local", RecordType::A);
        let mut edns = Edns::new();
        edns.set_version(1);
        version.set_edns(edns);
        assert_eq!(code(&version), ResponseCode::BADVERS);
        let mut response = query("cluster.local", RecordType::A);
        response.metadata.message_type = MessageType::Response;
        assert_eq!(answer(&zone(), &response, false), Outcome::Ignore);
    }

    #[test]
    fn addresses_rotate_with_the_identifier() {
        let first = |identifier: u16| {
            let mut query = query("many.default.svc.cluster.local", RecordType::A);
            query.metadata.id = identifier;
            match answer(&zone(), &query, false) {
                Outcome::Reply(reply) => reply.answers[0].data.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_ne!(first(1), first(2));
        assert_eq!(first(3), first(203));
    }

    #[test]
    fn udp_answers_fit_and_say_when_something_is_missing() {
        let check = |kind: RecordType, payload: Option<u16>, limit: usize| {
            let mut query = query("many.default.svc.cluster.local", kind);
            if let Some(payload) = payload {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                query.set_edns(edns);
            }
            let Outcome::Reply(reply) = answer(&zone(), &query, false) else {
                panic!("no reply")
            };
            let bytes = encode_udp(reply, &query).unwrap();
            assert!(bytes.len() <= limit, "{} bytes", bytes.len());
            let decoded = Message::from_vec(&bytes).unwrap();
            assert!(decoded.metadata.truncation);
            assert!(!decoded.answers.is_empty());
            assert_eq!(decoded.edns.is_some(), payload.is_some());
        };
        check(RecordType::A, None, 512);
        check(RecordType::A, Some(100), 512);
        check(RecordType::A, Some(4096), 1232);
        check(RecordType::SRV, Some(1232), 1232);
    }

    #[test]
    fn garbage_is_answered_once_and_responses_never() {
        assert_eq!(malformed(&[1, 2, 3]), None);
        let mut bytes = [0u8; 12];
        bytes[1] = 7;
        assert_eq!(malformed(&bytes).unwrap().metadata.id, 7);
        bytes[2] = 0x80;
        assert_eq!(malformed(&bytes), None);
    }
}
