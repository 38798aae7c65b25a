//! Hand-written clients: a table, and upserts into it.

use std::{
    collections::HashMap,
    pin::pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use persistify_benches::{Customer, timed};
use tokio::runtime::Runtime;
use tokio_postgres::{
    Client, NoTls, Statement,
    binary_copy::BinaryCopyOutStream,
    types::{Json, Type},
};

/// The columns of Persistify's own table.
const TABLE: &str = r#"CREATE TABLE entries (
    key text COLLATE "C" PRIMARY KEY,
    value jsonb NOT NULL,
    revision bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz,
    schema integer NOT NULL DEFAULT 0
)"#;

const ON_CONFLICT: &str = "ON CONFLICT (key) DO UPDATE SET
    value = excluded.value, revision = excluded.revision,
    updated_at = excluded.updated_at, expires_at = excluded.expires_at,
    schema = excluded.schema";

/// How a client writes a batch.
#[derive(Clone, Copy)]
pub enum Way {
    /// One statement per row, each in its own implicit transaction.
    RowByRow,
    /// One `BEGIN`, upsert and `COMMIT` per row.
    RowByTransaction,
    /// `BEGIN`, one upsert of arrays (`UNNEST`) and `COMMIT`.
    Unnest,
    /// The upsert of arrays in its own implicit transaction, so in a single round trip.
    UnnestAlone,
    /// `COPY` into a temporary table, then one upsert from it.
    CopyAndMerge,
}

/// One connection, with prepared upserts.
pub struct ByHand {
    client: Client,
    upsert: Statement,
    upsert_one: Statement,
    revision: i64,
}

impl ByHand {
    pub fn connect(runtime: &Runtime, url: &str) -> Self {
        let connected = runtime.block_on(tokio_postgres::connect(url, NoTls));
        let (client, connection) = connected.expect("a connection");
        runtime.spawn(connection);
        let made = runtime.block_on(client.batch_execute(TABLE));
        made.expect("a table");
        let upsert = format!(
            "INSERT INTO entries (key, value, revision, updated_at)
             SELECT key, value, $3, $4 FROM unnest($1::text[], $2::jsonb[]) AS t (key, value)
             {ON_CONFLICT}"
        );
        let upsert_one = format!(
            "INSERT INTO entries (key, value, revision, updated_at) VALUES ($1, $2, $3, $4) {ON_CONFLICT}"
        );
        let prepare = |sql: &str| runtime.block_on(client.prepare(sql)).expect("a statement");
        Self {
            upsert: prepare(&upsert),
            upsert_one: prepare(&upsert_one),
            client,
            revision: 0,
        }
    }

    /// Times the encoding and the upserts; the values are already in memory.
    pub fn write(
        &mut self,
        runtime: &Runtime,
        way: Way,
        keys: &[String],
        customers: &[Customer],
    ) -> Duration {
        self.revision += 1;
        timed(|| {
            runtime
                .block_on(self.write_in(way, keys, customers))
                .expect("all saved");
        })
    }

    async fn write_in(
        &mut self,
        way: Way,
        keys: &[String],
        customers: &[Customer],
    ) -> Result<(), tokio_postgres::Error> {
        match way {
            Way::RowByRow => self.row_by_row(keys, customers).await,
            Way::RowByTransaction => self.row_by_transaction(keys, customers).await,
            Way::Unnest => self.unnest(keys, customers).await,
            Way::UnnestAlone => self.unnest_alone(keys, customers).await,
            Way::CopyAndMerge => self.copy_and_merge(keys, customers).await,
        }
    }

    async fn row_by_row(
        &self,
        keys: &[String],
        customers: &[Customer],
    ) -> Result<(), tokio_postgres::Error> {
        let now = SystemTime::now();
        for (key, customer) in keys.iter().zip(customers) {
            self.client
                .execute(
                    &self.upsert_one,
                    &[key, &Json(customer), &self.revision, &now],
                )
                .await?;
        }
        Ok(())
    }

    async fn row_by_transaction(
        &mut self,
        keys: &[String],
        customers: &[Customer],
    ) -> Result<(), tokio_postgres::Error> {
        let now = SystemTime::now();
        for (key, customer) in keys.iter().zip(customers) {
            let transaction = self.client.transaction().await?;
            transaction
                .execute(
                    &self.upsert_one,
                    &[key, &Json(customer), &self.revision, &now],
                )
                .await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    async fn unnest(
        &mut self,
        keys: &[String],
        customers: &[Customer],
    ) -> Result<(), tokio_postgres::Error> {
        let values: Vec<_> = customers.iter().map(Json).collect();
        let now = SystemTime::now();
        let transaction = self.client.transaction().await?;
        transaction
            .execute(&self.upsert, &[&keys, &values, &self.revision, &now])
            .await?;
        transaction.commit().await
    }

    async fn unnest_alone(
        &self,
        keys: &[String],
        customers: &[Customer],
    ) -> Result<(), tokio_postgres::Error> {
        let values: Vec<_> = customers.iter().map(Json).collect();
        let now = SystemTime::now();
        self.client
            .execute(&self.upsert, &[&keys, &values, &self.revision, &now])
            .await?;
        Ok(())
    }

    async fn copy_and_merge(
        &mut self,
        keys: &[String],
        customers: &[Customer],
    ) -> Result<(), tokio_postgres::Error> {
        let transaction = self.client.transaction().await?;
        let staged = "CREATE TEMPORARY TABLE staged (key text, value jsonb) ON COMMIT DROP";
        transaction.batch_execute(staged).await?;
        let mut sink = pin!(
            transaction
                .copy_in::<_, Bytes>("COPY staged FROM STDIN")
                .await?
        );
        let rows = keys.iter().zip(customers);
        // The keys and values contain no characters that `COPY` requires to escape.
        let mut lines = String::new();
        for (key, customer) in rows {
            lines.extend([key, "\t", &customer.json(), "\n"]);
        }
        sink.send(lines.into()).await?;
        sink.close().await?;
        let merge = format!(
            "INSERT INTO entries (key, value, revision, updated_at)
             SELECT key, value, $1, $2 FROM staged {ON_CONFLICT}"
        );
        let now = SystemTime::now();
        transaction.execute(&merge, &[&self.revision, &now]).await?;
        transaction.commit().await
    }

    /// Times a load of the whole table into a `HashMap`.
    pub fn load(&self, runtime: &Runtime) -> (Duration, HashMap<String, Customer>) {
        let mut loaded = HashMap::new();
        let time = timed(|| loaded = runtime.block_on(self.load_all()).expect("all loaded"));
        (time, loaded)
    }

    async fn load_all(&self) -> Result<HashMap<String, Customer>, tokio_postgres::Error> {
        let copy = "COPY (SELECT key, value, revision, updated_at, expires_at, schema FROM entries)
                    TO STDOUT (FORMAT binary)";
        let types = [
            Type::TEXT,
            Type::JSONB,
            Type::INT8,
            Type::TIMESTAMPTZ,
            Type::TIMESTAMPTZ,
            Type::INT4,
        ];
        let rows = BinaryCopyOutStream::new(self.client.copy_out(copy).await?, &types);
        let decoded = rows.map(|row| {
            let row = row?;
            let Json(customer) = row.try_get(1)?;
            Ok((row.try_get(0)?, customer))
        });
        decoded.try_collect().await
    }
}
