//! Random operations against a model.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use common::model::{Model, compare, step};
use common::{Image, Machine};
use testing::Dice;

#[test]
fn random_changes_leave_what_the_model_says_and_a_clean_image() {
    for (i, kind) in [
        "-t ext2 -b 1024",
        "-t ext3 -b 4096",
        "-t ext4 -b 1024",
        "-t ext4 -b 4096",
    ]
    .into_iter()
    .enumerate()
    {
        for seed in 0..2 {
            let image = Image::make(kind, "48M");
            let m = Machine::with(&image.path);
            let mut rng = Dice::new(seed * 10 + i as u64);
            let mut model = Model::new();
            for _ in 0..3 {
                for _ in 0..150 {
                    step(&m, &mut rng, &mut model);
                }
                m.unmount().expect("unmounts");
                image.assert_clean();
                m.mount(&image.path, "").expect("mounts");
                compare(&m, &model);
            }
            m.unmount().expect("unmounts");
            image.assert_clean();
        }
    }
}
