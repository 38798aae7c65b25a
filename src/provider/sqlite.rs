//! Keeps maps in one `SQLite` file.
