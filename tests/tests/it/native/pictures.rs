//! Pictures that come over the socket and are never saved (`SaveImageWebsocket`).

use darkroom_tests::{
    Options, Server,
    native::{Client, Frame},
    pixels,
};
use serde_json::{Value, json};

fn graph(colour: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 24, "height": 16, "batch_size": 2, "color": colour}},
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    })
}

fn pictures(frames: &[Frame]) -> Vec<Vec<u8>> {
    let binary = frames.iter().filter_map(|frame| match frame {
        Frame::Binary(bytes) => Some(bytes.clone()),
        Frame::Text(_) | Frame::Closed => None,
    });
    binary.collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_picture_of_a_prompt_arrives_before_its_end_also_when_the_instance_is_faster_than_the_answer() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "pictures").await;
    for colour in 1..=25 {
        let id = client.submit(&api, "", &graph(colour)).await;
        let frames = client.until_end(&id).await;
        let pictures = pictures(&frames);
        assert_eq!(pictures.len(), 2, "{colour}: {frames:?}");
        for picture in pictures {
            // An event 1 with a PNG, as ComfyUI's example scripts cut it.
            assert_eq!((word(&picture, 0), word(&picture, 4)), (1, 2));
            assert!(pixels::decode(&picture[8..]) == pixels::plain(colour, 24, 16));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_metadata_is_told_which_node_of_which_prompt_a_picture_is_of() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "metadata").await;
    client
        .say(&json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}))
        .await;
    client.until("feature_flags").await;
    let id = client.submit(&api, "", &graph(0x40_50_60)).await;
    let pictures = pictures(&client.until_end(&id).await);
    assert_eq!(pictures.len(), 2);
    for picture in pictures {
        let end = 8 + word(&picture, 4) as usize;
        let metadata: Value = serde_json::from_slice(&picture[8..end]).unwrap();
        assert_eq!(word(&picture, 0), 4);
        assert_eq!(
            (
                &metadata["node_id"],
                &metadata["prompt_id"],
                &metadata["image_type"]
            ),
            (&json!("2"), &json!(id), &json!("image/png"))
        );
        assert!(pixels::decode(&picture[end..]) == pixels::plain(0x40_50_60, 24, 16));
    }
}
