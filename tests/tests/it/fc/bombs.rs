//! Pictures of a few bytes that claim to be enormous.

use std::io::Write;

use darkroom_tests::{Options, Server, fc, graphs, pixels};
use reqwest::Method;

use super::{
    jobs, refused,
    website::{Page, Website},
};

/// A PNG of that many pixels, all black, as small as zlib makes it; only its header and its data are true.
fn black(width: u32, height: u32, rows: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    header.extend_from_slice(&[8, 0, 0, 0, 0]);
    chunk(&mut png, *b"IHDR", &header);
    let raw = vec![0_u8; rows as usize * (width as usize + 1)];
    chunk(&mut png, *b"IDAT", &stored_zlib(&raw));
    chunk(&mut png, *b"IEND", &[]);
    png
}

/// zlib without compression: what matters here is what the header claims.
fn stored_zlib(raw: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = raw.chunks(65_535).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("at most 65535");
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in raw {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend_from_slice(&((b << 16) | a).to_be_bytes());
    out
}

fn chunk(png: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("small");
    let mut checked = kind.to_vec();
    checked.extend_from_slice(data);
    png.write_all(&length.to_be_bytes()).expect("memory");
    png.write_all(&checked).expect("memory");
    png.write_all(&crc(&checked).to_be_bytes()).expect("memory");
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            if c & 1 == 1 {
                (c >> 1) ^ 0xedb8_8320
            } else {
                c >> 1
            }
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_would_fill_the_memory() {
    let honest = black(8, 8, 8);
    assert_eq!(
        pixels::decode(&honest).dimensions(),
        (8, 8),
        "the maker of bombs makes pictures"
    );
    let site = Website::start(&[("/bomb.png", Page::Body(200, black(60_000, 60_000, 1).into()))]).await;
    let server = Server::start(Options::default().with_config("[fetch]\nallow = [\"127.0.0.1\"]\n")).await;
    let api = server.api();
    let bombs = [
        black(60_000, 60_000, 1),
        black(u32::MAX, u32::MAX, 0),
        black(0x7fff_ffff, 1, 0),
        black(16_384, 16_384, 1),
        black(0, 0, 0),
        black(1, 0, 0),
    ];
    for (n, bomb) in bombs.iter().enumerate() {
        let answer = fc::run(&api, "", &graphs::invert(&pixels::data_uri(bomb))).await;
        let body = refused(&answer, 500, "UNCLASSIFY");
        assert!(
            body["error_message"]
                .as_str()
                .unwrap_or_default()
                .starts_with("LoadImage failed: "),
            "{n}: {body}"
        );
    }
    let by_url = fc::run(&api, "", &graphs::invert(&format!("{}/bomb.png", site.url))).await;
    refused(&by_url, 500, "UNCLASSIFY");
    assert_eq!(jobs(&api).await, 0);
    // An upload is only a file; used as a picture it fails, and takes nobody with it.
    for (n, bomb) in bombs.into_iter().enumerate() {
        let name = format!("bomb-{n}.png");
        let upload = api.request(
            Method::PUT,
            &format!("/darkroom/v1/endpoints/default/inputs/{name}"),
        );
        let uploaded = api.send(upload.body(bomb)).await;
        if uploaded.status.is_success() {
            let answer = fc::run(&api, "", &graphs::invert(&name)).await;
            assert_eq!(answer.status, 500, "{name}: {}", answer.text());
            assert_eq!(answer.json()["type"], "error", "{name}");
        }
    }
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}
