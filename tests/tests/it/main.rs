//! All black-box tests, one binary: linking once is a third of the time of linking per file.

mod rooms;
