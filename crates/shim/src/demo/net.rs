//! Network commands: names by the resolver's rules, and plain HTTP. The static C library's own resolver would load shared
//! libraries that an image does not have.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// What there is.
pub const COMMANDS: &[&str] = &["get", "resolve", "udp"];

const TIMEOUT: Duration = Duration::from_secs(5);
const A: u16 = 1;
const AAAA: u16 = 28;

/// `get URL [COUNT]`, `resolve NAME`, `udp HOST:PORT TEXT`.
pub fn run(name: &str, args: &[String]) -> i32 {
    let Some(first) = args.first() else {
        eprintln!("{name}: missing operand");
        return 2;
    };
    let outcome = match name {
        "get" => (0..args.get(1).and_then(|text| text.parse().ok()).unwrap_or(1)).try_for_each(|_| {
            let (status, body) = get(first)?;
            print!("{body}");
            if status == 200 {
                Ok(())
            } else {
                Err(io::Error::other(format!("status {status}")))
            }
        }),
        "resolve" => resolve(first).map(|addresses| addresses.iter().for_each(|address| println!("{address}"))),
        _ => udp(first, args.get(1).map_or("", String::as_str)).map(|text| println!("{text}")),
    };
    match outcome {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("{name}: {first}: {err}");
            1
        }
    }
}

fn split(text: &str, default_port: u16) -> io::Result<(&str, u16)> {
    if let Some((host, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return Ok((
            host,
            port.strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .unwrap_or(default_port),
        ));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok((host, port.parse().map_err(io::Error::other)?)),
        None => Ok((text, default_port)),
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut error = io::Error::other("no such host");
    for address in resolve(host)? {
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(err) => error = err,
        }
    }
    Err(error)
}

fn get(url: &str) -> io::Result<(u16, String)> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let (host, port) = split(authority, 80)?;
    let mut stream = connect(host, port)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_default();
    Ok((status, body.to_owned()))
}

fn udp(target: &str, text: &str) -> io::Result<String> {
    let (host, port) = split(target, 53)?;
    let address = *resolve(host)?.first().ok_or_else(|| io::Error::other("no such host"))?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect((address, port))?;
    socket.send(text.as_bytes())?;
    let mut answer = [0u8; 2048];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// An address, `/etc/hosts`, or the name servers of `/etc/resolv.conf` with its search list and `ndots`.
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let matches = |line: &&str| {
        line.split('#')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .skip(1)
            .any(|word| word == name)
    };
    let found: Vec<IpAddr> = hosts
        .lines()
        .filter(matches)
        .filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let file = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let words = |key: &str| -> Vec<String> {
        file.lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix([' ', '\t']))
            .flat_map(str::split_ascii_whitespace)
            .map(str::to_owned)
            .collect()
    };
    let servers = words("nameserver");
    let ndots = words("options")
        .iter()
        .find_map(|word| word.strip_prefix("ndots:")?.parse().ok())
        .unwrap_or(1usize);
    let searched = words("search").into_iter().map(|domain| format!("{name}.{domain}"));
    let mut names: Vec<String> = if name.ends_with('.') {
        Vec::new()
    } else {
        searched.collect()
    };
    if name.matches('.').count() >= ndots || name.ends_with('.') {
        names.insert(0, name.to_owned());
    } else {
        names.push(name.to_owned());
    }
    let mut error = io::Error::other("no such host");
    for name in names {
        for server in &servers {
            let mut found = Vec::new();
            for kind in [A, AAAA] {
                match query(server, &name, kind) {
                    Ok(addresses) => found.extend(addresses),
                    Err(err) => error = err,
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    Err(error)
}

fn query(server: &str, name: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
    let server: IpAddr = server.parse().map_err(io::Error::other)?;
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        message.push(length.ok_or(io::ErrorKind::InvalidInput)?);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect((server, 53))?;
    socket.send(&message)?;
    let mut answer = [0u8; 4096];
    let length = socket.recv(&mut answer)?;
    addresses(&answer[..length], message.len()).ok_or_else(|| io::Error::other("a bad answer"))
}

fn addresses(answer: &[u8], question_end: usize) -> Option<Vec<IpAddr>> {
    let word = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let count = word(6)?;
    let mut at = question_end;
    let mut found = Vec::new();
    for _ in 0..count {
        while *answer.get(at)? != 0 && *answer.get(at)? < 0xc0 {
            at += usize::from(answer[at]) + 1;
        }
        at += if answer[at] == 0 { 1 } else { 2 };
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        match (kind, data.len()) {
            (A, 4) => found.push(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?))),
            (AAAA, 16) => found.push(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?))),
            _ => {}
        }
    }
    Some(found)
}
