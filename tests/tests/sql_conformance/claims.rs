//! Who may flush; weir's own tables.

use weir::model::Incarnation;
use weir::sql::SqlError;

use crate::fixture::{Fixture, KIND};

pub async fn a_claim_creates_raises_and_respects(fixture: &Fixture) {
    let old = Incarnation::fresh();
    let new = Incarnation::after(old);
    assert_eq!(fixture.sql.checkpoints(KIND, &[3, 1]).await.unwrap(), vec![None, None]);
    let made = fixture.sql.claim(KIND, &[(3, old), (1, old)], true).await.unwrap();
    assert_eq!(made.iter().map(|row| row.partition).collect::<Vec<_>>(), vec![3, 1]);
    assert!(made.iter().all(|row| row.incarnation == old && row.position == 0 && row.epoch == made[0].epoch));
    // The same again changes nothing; taking over raises the epoch.
    assert_eq!(fixture.sql.claim(KIND, &[(3, old)], false).await.unwrap(), vec![made[0]]);
    let taken = fixture.sql.claim(KIND, &[(3, old)], true).await.unwrap()[0];
    assert_eq!((taken.epoch, taken.incarnation), (made[0].epoch + 1, old));
    // A later life starts anew and fences the old one; an earlier one is left alone.
    let later = fixture.sql.claim(KIND, &[(3, new)], false).await.unwrap()[0];
    assert_eq!((later.epoch, later.incarnation, later.position), (taken.epoch + 1, new, 0));
    assert_eq!(fixture.sql.claim(KIND, &[(3, old)], true).await.unwrap(), vec![later]);
    // Partition 1 and other kinds were not touched.
    assert_eq!(fixture.checkpoint(1).await, Some(made[1]));
    assert_eq!(fixture.sql.checkpoints("other", &[3]).await.unwrap(), vec![None]);
    let both = fixture.sql.checkpoints(KIND, &[1, 2, 3]).await.unwrap();
    assert_eq!(both, vec![Some(made[1]), None, Some(later)]);
}

pub async fn two_claimers_agree(fixture: &Fixture) {
    let life = Incarnation::fresh();
    let wanted: Vec<(u16, Incarnation)> = (0..8).map(|partition| (partition, life)).collect();
    let (one, two) = (fixture.other().await, fixture.other().await);
    let claim = async |sql: &dyn weir::sql::Sql| loop {
        match sql.claim(KIND, &wanted, true).await {
            Ok(rows) => return rows,
            Err(SqlError::Transient(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    };
    let (first, second) = tokio::join!(claim(&*one), claim(&*two));
    // One came first; the other's epochs are higher, and they are what is there.
    let winner = if first[0].epoch > second[0].epoch { &first } else { &second };
    assert!(first.iter().zip(&second).all(|(a, b)| a.epoch != b.epoch && a.incarnation == b.incarnation));
    let now: Vec<_> = fixture.sql.checkpoints(KIND, &(0..8).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(now.into_iter().flatten().collect::<Vec<_>>(), *winner);
}

pub async fn migrations_run_at_once(fixture: &Fixture) {
    fixture.run("DROP TABLE weir_meta; DROP TABLE weir_checkpoint; DROP TABLE weir_dead_letter").await;
    let hosts = [fixture.other().await, fixture.other().await, fixture.other().await, fixture.other().await];
    let done = futures_util::future::join_all(hosts.iter().map(|host| host.migrate())).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    fixture.sql.migrate().await.unwrap();
    assert_eq!(fixture.number("SELECT count(*) FROM weir_meta").await, 1);
    fixture.claim(0).await;
}

pub async fn a_later_schema_is_refused(fixture: &Fixture) {
    fixture.run("UPDATE weir_meta SET value = '999' WHERE name = 'schema'").await;
    let error = fixture.sql.migrate().await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("upgrade weir")), "{error:?}");
}

pub async fn the_number_of_partitions_is_recorded(fixture: &Fixture) {
    assert_eq!(fixture.sql.check_partitions(8).await.unwrap(), None);
    assert_eq!(fixture.sql.check_partitions(8).await.unwrap(), None);
    assert_eq!(fixture.other().await.check_partitions(16).await.unwrap(), Some(8));
    assert_eq!(fixture.sql.check_partitions(8).await.unwrap(), None);
}
