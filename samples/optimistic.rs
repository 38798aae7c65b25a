//! Several programs share jobs: each job is claimed by exactly one of them, and a
//! counter that all of them increment is exact.
//!
//! In this sample the programs are tasks that each open the file. They share no
//! memory.

use std::path::Path;

use persistify::{ErrorKind, Expect, PersistentMap, Result, RetryPolicy, Sqlite};

const PROGRAMS: usize = 4;
const JOBS: usize = 12;

/// Claims a job unless another program has claimed it.
async fn claim(jobs: &PersistentMap<String>, job: &str, me: &str) -> Result<bool> {
    match jobs.save_if(job, me.to_owned(), Expect::Absent).await {
        Ok(_) => Ok(true),
        // The map now has the stored entry: the name of the other program.
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

async fn program(db: &Path, me: String) -> Result<usize> {
    let file = Sqlite::open(db).await?;
    let jobs = PersistentMap::builder(file.clone(), "jobs").open().await?;
    // The more programs write the same key, the more attempts it takes.
    let patient = RetryPolicy::default().max_attempts(50);
    let done = PersistentMap::<usize>::builder(file, "done");
    let done = done.retry_conflicts(patient).open().await?;
    let mut mine = 0;
    for n in 0..JOBS {
        let job = format!("job {n}");
        if !claim(&jobs, &job, &me).await? {
            let who = jobs.get(&job);
            println!(
                "{me}: {job} was claimed by {}",
                who.as_deref().unwrap_or("?")
            );
            continue;
        }
        done.update_in_store("all", |jobs| jobs + 1).await?;
        mine += 1;
    }
    jobs.close().await?;
    done.close().await?;
    Ok(mine)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("jobs.db");
    let file = Sqlite::open(&db).await?;
    let done: PersistentMap<usize> = PersistentMap::builder(file, "done").open().await?;
    done.save_if("all", 0, Expect::Absent).await?;

    let mut programs = tokio::task::JoinSet::new();
    for n in 0..PROGRAMS {
        let db = db.clone();
        programs.spawn(async move { program(&db, format!("program {n}")).await });
    }
    let mut claimed = 0;
    for mine in programs.join_all().await {
        claimed += mine?;
    }
    done.reload().await?;
    println!("{claimed} jobs claimed, {:?} counted", done.get("all"));
    assert_eq!((claimed, done.get("all")), (JOBS, Some(JOBS)));

    // A revision is a number, usable as an ETag: a change is saved only if the entry
    // is still the one that the client has read.
    let (count, revision) = done.get_with_revision("all").unwrap_or_default();
    let tag = format!("\"{revision}\"");
    let if_match = tag.trim_matches('"').parse()?;
    done.save_if("all", count + 1, Expect::At(if_match)).await?;
    done.close().await?;
    Ok(())
}
