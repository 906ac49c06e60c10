//! Memory of the edge that never grows: tables with a fixed capacity, and the open panes in them.

mod index;

pub mod fixed;

pub mod interner;

pub mod pane;
