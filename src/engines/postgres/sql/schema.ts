/**
 * The tables, version 1. What is written on every turn is only ever inserted, and found from its newest end: a
 * transaction that somebody holds open keeps dead rows from being cleaned up, and an index that has to be walked past
 * thousands of them for every look is what makes other queues in Postgres collapse.
 */
export const CREATE_TABLES = `
CREATE TABLE @.topics (
  topic_id                integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic                   text    NOT NULL UNIQUE,
  kind                    text    NOT NULL,
  partitions              integer NOT NULL,
  deduplication_window_ms bigint  NOT NULL,
  max_age_ms              bigint  NOT NULL,
  max_bytes               bigint,
  drop_unread             boolean NOT NULL,
  max_backlog             bigint,
  had_subscription        boolean NOT NULL DEFAULT false,
  -- Rises when what was stored is deleted by hand: nobody's knowledge of the log is true any more.
  generation              integer NOT NULL DEFAULT 0,
  -- Whether there may be rows of the topic in "cancelled".
  has_cancelled           boolean NOT NULL DEFAULT false
);

-- The lanes that a topic has, partition by partition.
CREATE TABLE @.partitions (
  topic_id     integer NOT NULL,
  partition    integer NOT NULL,
  PRIMARY KEY (topic_id, partition)
);

-- Where what is kept of a partition begins: the highest holds, and 0 where there is none. No batch is below it, but for
-- what a purge is about to delete.
CREATE TABLE @.floors (
  topic_id     integer NOT NULL,
  partition    integer NOT NULL,
  first_offset bigint  NOT NULL,
  PRIMARY KEY (topic_id, partition, first_offset)
);

-- Record batches, without gaps from the floor of their partition on. None holds more than 1,000 messages.
CREATE TABLE @.batches (
  topic_id      integer NOT NULL,
  partition     integer NOT NULL,
  base_offset   bigint  NOT NULL,
  count         integer NOT NULL,
  first_time_ms bigint  NOT NULL,
  last_time_ms  bigint  NOT NULL,
  bytes         integer NOT NULL,
  checksum      bigint  NOT NULL,
  shared        text    NOT NULL,
  data          text    NOT NULL,
  PRIMARY KEY (topic_id, partition, base_offset)
);
-- Compressing what is read back within milliseconds costs more than it saves.
ALTER TABLE @.batches ALTER COLUMN data SET STORAGE EXTERNAL;

-- The first offset that is kept of each partition, and the one that its next message gets.
CREATE VIEW @.ends AS
SELECT p.topic_id, p.partition, bottom.first_offset,
       coalesce(newest.base_offset + newest.count, bottom.first_offset) AS next_offset
  FROM @.partitions p
 CROSS JOIN LATERAL (
         SELECT coalesce((SELECT f.first_offset FROM @.floors f
                           WHERE f.topic_id = p.topic_id AND f.partition = p.partition
                           ORDER BY f.first_offset DESC LIMIT 1), 0) AS first_offset) bottom
  LEFT JOIN LATERAL (
         SELECT b.base_offset, b.count FROM @.batches b
          WHERE b.topic_id = p.topic_id AND b.partition = p.partition AND b.base_offset >= bottom.first_offset
          ORDER BY b.base_offset DESC LIMIT 1) newest ON true;

-- Ids that publishers gave, for as long as each is remembered. They are of any length, and may hold what Postgres
-- has no room for in a text (U+0000), so their hashes are kept: see log/id-hash.ts.
CREATE TABLE @.ids (
  topic_id      integer NOT NULL,
  id_hash       uuid    NOT NULL,
  expires_at_ms bigint  NOT NULL,
  PRIMARY KEY (topic_id, id_hash)
);
CREATE INDEX ids_by_expiry ON @.ids (expires_at_ms);

-- Messages that are not due yet.
CREATE TABLE @.delayed (
  delayed_id    bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic_id      integer NOT NULL,
  partition     integer NOT NULL,
  id_hash       uuid    NOT NULL,
  deliver_at_ms bigint  NOT NULL,
  time_ms       bigint  NOT NULL,
  shared        text    NOT NULL,
  own           text    NOT NULL
);
CREATE INDEX delayed_by_time ON @.delayed (deliver_at_ms, delayed_id);
CREATE INDEX delayed_by_id ON @.delayed (topic_id, id_hash);

-- Messages of the log that are delivered to nobody.
CREATE TABLE @.cancelled (
  topic_id  integer NOT NULL,
  partition integer NOT NULL,
  "offset"  bigint  NOT NULL,
  PRIMARY KEY (topic_id, partition, "offset")
);

CREATE TABLE @.subscriptions (
  subscription_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic_id        integer NOT NULL,
  subscription    text    NOT NULL,
  ordered         boolean NOT NULL,
  max_crashes     integer NOT NULL,
  max_parked      bigint  NOT NULL,
  paused          boolean NOT NULL DEFAULT false,
  UNIQUE (topic_id, subscription)
);

-- Positions, leases and owners of a subscription as one text (see delivery/delivery-state.ts). The newest version holds.
CREATE TABLE @.states (
  subscription_id integer NOT NULL,
  version         bigint  NOT NULL,
  state           text    NOT NULL,
  PRIMARY KEY (subscription_id, version)
);
ALTER TABLE @.states ALTER COLUMN state SET STORAGE MAIN;

-- Messages that wait outside of the log, under lease or not. "wait": 'time' (an attempt or a limit of its own), 'turn'
-- (behind others of its key) or 'grant' (its turn has come).
CREATE TABLE @.set_aside (
  row_id          bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscription_id integer  NOT NULL,
  partition       integer  NOT NULL,
  "offset"        bigint   NOT NULL,
  key             text,
  wait            text     NOT NULL,
  due_at_ms       bigint,
  status          text     NOT NULL,
  attempt         integer  NOT NULL,
  crashes         integer  NOT NULL,
  failures        text     NOT NULL,
  -- The lease of the attempt that failed last.
  failed_under    bigint,
  -- Of messages that were redriven: a copy, which outlives the log, and the hash of its id.
  event           text,
  id_hash         uuid
);
CREATE INDEX set_aside_by_time ON @.set_aside (subscription_id, due_at_ms, "offset") WHERE wait <> 'turn';
CREATE INDEX set_aside_by_place ON @.set_aside (subscription_id, partition, "offset");
CREATE INDEX set_aside_by_key ON @.set_aside (subscription_id, partition, md5(key), "offset") WHERE key IS NOT NULL;
CREATE INDEX set_aside_by_id ON @.set_aside (subscription_id, id_hash) WHERE id_hash IS NOT NULL;
-- Suspects are among the few that have crashed.
CREATE INDEX set_aside_crashed ON @.set_aside (subscription_id, due_at_ms, "offset")
 WHERE crashes > 0 AND wait <> 'turn';

CREATE TABLE @.dead_letters (
  dead_letter_id  bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscription_id integer NOT NULL,
  partition       integer NOT NULL,
  "offset"        bigint  NOT NULL,
  key             text,
  blocks          boolean NOT NULL,
  reason          text    NOT NULL,
  dead_at_ms      bigint  NOT NULL,
  attempts        integer NOT NULL,
  crashes         integer NOT NULL,
  failures        text    NOT NULL,
  -- Without it the message could not be read.
  event           text,
  id_hash         uuid
);
CREATE INDEX dead_letters_by_subscription ON @.dead_letters (subscription_id, dead_letter_id);
CREATE INDEX dead_letters_by_place ON @.dead_letters (subscription_id, partition, "offset");
CREATE INDEX dead_letters_that_block ON @.dead_letters (subscription_id, partition, md5(key)) WHERE blocks;

-- Results of finished steps.
CREATE TABLE @.steps (
  subscription_id integer NOT NULL,
  partition       integer NOT NULL,
  "offset"        bigint  NOT NULL,
  name            text    NOT NULL,
  result          text    NOT NULL,
  PRIMARY KEY (subscription_id, partition, "offset", name)
);

CREATE TABLE @.sessions (
  session_id     text    PRIMARY KEY,
  -- Rises with each renewal.
  beat           bigint  NOT NULL,
  beaten_at_ms   bigint  NOT NULL,
  started_at_ms  bigint  NOT NULL,
  lease_ms       bigint  NOT NULL,
  host           text    NOT NULL,
  pid            integer NOT NULL,
  consumes       boolean NOT NULL DEFAULT false
);

-- What counts in each bucket of a limit: of a rate limit when it is full again, of a limit of messages in flight the
-- places that each source holds, as JSON. The newest version holds; "kept" versions from "kept_from" on are there.
CREATE TABLE @.counters (
  subscription_id integer NOT NULL,
  counter         text    NOT NULL,
  version         bigint  NOT NULL,
  kept_from       bigint  NOT NULL,
  kept            integer NOT NULL,
  full_at_ms      double precision,
  places          text,
  PRIMARY KEY (subscription_id, counter, version)
);
CREATE INDEX counters_by_time ON @.counters (full_at_ms) WHERE full_at_ms IS NOT NULL;

-- Breakers that are not closed.
CREATE TABLE @.breakers (
  subscription_id integer NOT NULL,
  source          text    NOT NULL,
  report          text    NOT NULL,
  PRIMARY KEY (subscription_id, source)
);

-- What was published within transactions of the user's, on its way into the log (see outbox/relay.ts).
CREATE TABLE @.outbox (
  outbox_id      bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  transaction_id xid8    NOT NULL DEFAULT pg_current_xact_id(),
  topic          text    NOT NULL,
  "group"        text    NOT NULL
);
CREATE INDEX outbox_by_transaction ON @.outbox (transaction_id, outbox_id);
-- Compressing what is read back within milliseconds costs more than it saves.
ALTER TABLE @.outbox ALTER COLUMN "group" SET STORAGE EXTERNAL;

-- The ids that publishers gave to messages of the outbox.
CREATE TABLE @.outbox_ids (
  outbox_id bigint NOT NULL,
  id_hash   uuid   NOT NULL,
  topic     text   NOT NULL,
  PRIMARY KEY (outbox_id, id_hash)
);
CREATE INDEX outbox_ids_by_id ON @.outbox_ids (id_hash);

-- What the relay could not bring into the log, for which it waits, or somebody has to look into it.
CREATE TABLE @.stranded (
  outbox_id bigint PRIMARY KEY,
  topic     text   NOT NULL,
  "group"   text   NOT NULL,
  code      text   NOT NULL,
  problem   text   NOT NULL
);

-- One row: what tells this store from every other one.
CREATE TABLE @.installation (
  installation_id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO @.installation DEFAULT VALUES;

-- A store of another engine that was moved here, or is on its way (see moving/).
CREATE TABLE @.moves (
  store_id       text   PRIMARY KEY,
  store          text   NOT NULL,
  -- JSON: of each of its topics, the topic_id there and here.
  topic_ids      text   NOT NULL,
  finished_at_ms bigint,
  -- What it was when the move was finished, and how much there was of everything (JSON).
  fingerprint    text,
  counts         text
);

-- What the relay has seen of the outbox. The newest version holds.
CREATE TABLE @.relay (
  version    bigint PRIMARY KEY,
  -- A pg_snapshot: everything that it sees as committed was relayed.
  snapshot   text   NOT NULL,
  -- The process that did it.
  relayed_by text   NOT NULL
);
`
