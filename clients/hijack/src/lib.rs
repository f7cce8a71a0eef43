//! hijack.
mod elf;
mod maps;
mod mapvec;
mod mem;
mod patch;
mod scan;
mod sys;
