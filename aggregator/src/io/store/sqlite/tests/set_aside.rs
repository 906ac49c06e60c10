//! Stored bytes that cannot be read: kept elsewhere, told as a loss, and in nobody's way.

use super::*;

const SET_ASIDE: &str = "SELECT kind, reason, \
                             coalesce((SELECT number FROM catchment_pipeline p WHERE p.id = pipeline), pipeline), \
                             start_us / 1000000, chunk, agent, epoch, seq, length(bytes) FROM catchment_set_aside ORDER BY id";
const LOSSES: &str = "SELECT agent, epoch, seq, \
                          coalesce((SELECT number FROM catchment_pipeline p WHERE p.id = pipeline), pipeline), \
                          from_us / 1000000, to_us / 1000000, readings FROM catchment_loss ORDER BY agent, seq";

#[test]
fn an_unreadable_pane_and_an_unreadable_batch_stop_neither_the_start_nor_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    centre.frame(1, 1, batch(1, 100, &[("x", &[1])]));
    centre.frame(1, 1, batch(2, 110, &[("x", &[2])]));
    centre.frame(1, 1, heartbeat(1, 2, 200));
    centre.settle(1);
    centre.settle(20);
    // After the checkpoint, two batches more.
    centre.frame(21, 1, batch(3, 110, &[("y", &[3])]));
    centre.frame(21, 1, batch(4, 110, &[("z", &[4])]));
    centre.settle(21);
    let damage = "UPDATE catchment_pane SET columns = substr(columns, 1, 5) WHERE start_us = 110000000;
                  UPDATE catchment_batch SET frame = substr(frame, 1, 30) WHERE seq = 3;";
    centre.writer.connection().execute_batch(damage).unwrap();
    let mut centre = centre.crash(30);
    centre.settle(40);
    let set_aside = [
        "batch|the checksum does not match|-|-|-|a|1|3|30",
        "pane|the frame ends too early|1|110|0|-|-|-|5",
    ];
    assert_eq!(centre.rows(SET_ASIDE), set_aside);
    assert_eq!(centre.rows(LOSSES), ["|0|0|1|110|120|0", "a|1|3|0|0|0|0"]);
    // The rest is there and is added to; the seqs are still known.
    centre.greet(50, 2, "a", held(4));
    assert_eq!(centre.committed(2), (1..=4).collect());
    centre.frame(50, 2, batch(5, 110, &[("z", &[5])]));
    centre.settle(50);
    let rows = centre.rows("SELECT device, readings, temp_sum FROM q ORDER BY window_start, device");
    assert_eq!(rows, ["x|1|1", "x|1|2", "y|1|3", "z|2|9"]);
    // Once is enough, and the next checkpoint leaves it where it is.
    centre.settle(60);
    let mut centre = centre.crash(70);
    centre.settle(80);
    assert_eq!(centre.rows(SET_ASIDE), set_aside);
    assert_eq!(centre.rows("SELECT count(*) FROM catchment_batch"), ["0"]);
}
