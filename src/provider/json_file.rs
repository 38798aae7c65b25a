//! Keeps maps as a folder of JSON files.
