/** What a store holds, read table by table and named alike, so that the two ends of a move can be compared. */
import { DatabaseSync } from 'node:sqlite'
import { Client, types } from 'pg'
import { batchChecksum } from '../../src/engines/checksum.ts'
import { DeliveryState } from '../../src/engines/postgres/delivery/delivery-state.ts'
import { idHash } from '../../src/engines/postgres/log/id-hash.ts'

type Row = Readonly<Record<string, unknown>>
export type Contents = Readonly<Record<string, readonly Row[]>>

const INT8 = 20

/** Of rows of a subscription. */
const HERE = 'JOIN posthorn_subscriptions s USING (subscription_id) JOIN posthorn_topics t USING (topic_id)'

const SQLITE = {
  topics: `
    SELECT name AS topic, kind, partitions, deduplication_window_ms AS window, retention_age_ms AS age,
           retention_bytes AS bytes, drop_unread AS "dropUnread", max_backlog AS backlog, had_subscription AS had
      FROM posthorn_topics ORDER BY 1`,
  ends: `
    SELECT name AS topic, partition, next_offset AS "nextOffset", coalesce((SELECT min(base_offset)
             FROM posthorn_batches b WHERE b.topic_id = p.topic_id AND b.partition = p.partition), next_offset) AS first
      FROM posthorn_partitions p JOIN posthorn_topics USING (topic_id) ORDER BY 1, 2`,
  batches: `
    SELECT name AS topic, topic_id AS "topicId", partition, base_offset AS "baseOffset", count, crc32 AS checksum,
           first_time_ms AS first, last_time_ms AS last, shared, data
      FROM posthorn_batches JOIN posthorn_topics USING (topic_id) ORDER BY 1, 3, 4`,
  delayed: `
    SELECT name AS topic, partition, message_id AS id, due_at_ms AS due, time_ms AS time, shared, own
      FROM posthorn_delayed JOIN posthorn_topics USING (topic_id) ORDER BY delayed_id`,
  cancelled: `
    SELECT name AS topic, partition, offset FROM posthorn_cancelled JOIN posthorn_topics USING (topic_id)
     ORDER BY 1, 2, 3`,
  ids: `
    SELECT name AS topic, message_id AS id, expires_at_ms AS until FROM posthorn_deduplication
      JOIN posthorn_topics USING (topic_id) ORDER BY 1, 3, 2`,
  subscriptions: `
    SELECT t.name AS topic, s.name AS subscription, ordered, max_crashes AS crashes, max_parked AS parked, paused,
           set_aside AS "setAside"
      FROM posthorn_subscriptions s JOIN posthorn_topics t USING (topic_id) ORDER BY 1, 2`,
  positions: `
    SELECT t.name AS topic, s.name AS subscription, partition, next_offset AS offset
      FROM posthorn_cursors ${HERE} ORDER BY 1, 2, 3`,
  setAside: `
    SELECT t.name AS topic, s.name AS subscription, partition, offset, message_key AS key, attempt, crashes, failures,
           event, message_id AS id, iif(parked = 1, 'turn', 'time') AS wait, iif(parked = 1, NULL, due_at_ms) AS due
      FROM posthorn_retries ${HERE} ORDER BY retry_id`,
  deadLetters: `
    SELECT dead_letter_id AS number, t.name AS topic, s.name AS subscription, partition, offset, message_key AS key,
           blocks, reason, dead_at_ms AS at, attempts, crashes, failures, event
      FROM posthorn_dead_letters ${HERE} ORDER BY 1`,
  buckets: `
    SELECT t.name AS topic, s.name AS subscription, json_array('rate', limit_name, bucket) AS counter, next_at_ms AS full
      FROM posthorn_rates ${HERE} ORDER BY 1, 2, 3`,
  steps: `
    SELECT t.name AS topic, s.name AS subscription, partition, offset, posthorn_steps.name, result
      FROM posthorn_steps ${HERE} ORDER BY 1, 2, 3, 4, 5`,
}

const OURS = 'JOIN subscriptions s USING (subscription_id) JOIN topics t USING (topic_id)'

const POSTGRES = {
  topics: `
    SELECT topic, kind, partitions, deduplication_window_ms AS window, max_age_ms AS age, max_bytes AS bytes,
           drop_unread::int AS "dropUnread", max_backlog AS backlog, had_subscription::int AS had FROM topics ORDER BY 1`,
  ends: `
    SELECT topic, partition, next_offset AS "nextOffset", first_offset AS first
      FROM ends JOIN topics USING (topic_id) ORDER BY 1, 2`,
  batches: `
    SELECT topic, topic_id AS "topicId", partition, base_offset AS "baseOffset", count, checksum,
           first_time_ms AS first, last_time_ms AS last, shared, data
      FROM batches JOIN topics USING (topic_id) ORDER BY 1, 3, 4`,
  delayed: `
    SELECT topic, partition, id_hash AS id, deliver_at_ms AS due, time_ms AS time, shared, own
      FROM delayed JOIN topics USING (topic_id) ORDER BY delayed_id`,
  cancelled: `SELECT topic, partition, "offset" FROM cancelled JOIN topics USING (topic_id) ORDER BY 1, 2, 3`,
  ids: `SELECT topic, id_hash AS id, expires_at_ms AS until FROM ids JOIN topics USING (topic_id)`,
  subscriptions: `
    SELECT topic, subscription, ordered::int, max_crashes AS crashes, max_parked AS parked, paused::int, state
      FROM subscriptions JOIN topics USING (topic_id) JOIN states USING (subscription_id) ORDER BY 1, 2`,
  setAside: `
    SELECT topic, subscription, partition, "offset", key, attempt, crashes, failures, event, id_hash AS id, wait,
           due_at_ms AS due
      FROM set_aside ${OURS} ORDER BY row_id`,
  deadLetters: `
    SELECT dead_letter_id AS number, topic, subscription, partition, "offset", key, blocks::int, reason,
           dead_at_ms AS at, attempts, crashes, failures, event
      FROM dead_letters ${OURS} ORDER BY 1`,
  buckets: `
    SELECT topic, subscription, counter, full_at_ms AS full FROM counters ${OURS} ORDER BY 1, 2, 3`,
  steps: `
    SELECT topic, subscription, partition, "offset", name, result FROM steps ${OURS} ORDER BY 1, 2, 3, 4, 5`,
}

export function contentsOfFile(file: string): Contents {
  using database = new DatabaseSync(file)
  const read = Object.entries(SQLITE).map(([name, text]) => {
    return [
      name,
      database
        .prepare(text)
        .all()
        .map((row) => ({ ...row })),
    ] as const
  })
  const tables: Contents = Object.fromEntries(read)
  return {
    ...tables,
    batches: checked(tables.batches!),
    ids: sortedIds(tables.ids!.map(hashed)),
    delayed: tables.delayed!.map(hashed),
    setAside: tables.setAside!.map(hashed),
  }
}

/** Of the schema `posthorn` of a database. */
export async function contentsOfDatabase(url: string): Promise<Contents> {
  const tables: Record<string, readonly Row[]> = {}
  await withClient(url, async (client) => {
    for (const [name, text] of Object.entries(POSTGRES)) tables[name] = (await client.query<Row>(text)).rows
  })
  return {
    ...tables,
    batches: checked(tables.batches!),
    ids: sortedIds(tables.ids!),
    steps: tables.steps!.map((step) => ({ ...step, name: String(step.name).replaceAll('\\u005c', '\\') })),
    subscriptions: tables.subscriptions!.map(({ state, ...row }) => {
      return { ...row, setAside: DeliveryState.parse(String(state)).setAside }
    }),
    positions: tables.subscriptions!.flatMap(({ topic, subscription, state }) => {
      const { cursors } = DeliveryState.parse(String(state))
      return Array.from(cursors, ([partition, offset]) => ({ topic, subscription, partition, offset }))
    }),
  }
}

/** What has come back unsettled, by subscription: each offset with its crashes. */
export async function returnedIn(url: string): Promise<Readonly<Record<string, string[]>>> {
  const { rows } = await withClient(url, (client) => client.query<Row>(POSTGRES.subscriptions))
  return Object.fromEntries(
    rows.map(({ subscription, state }) => {
      const { returned } = DeliveryState.parse(String(state))
      const offsets = returned.flatMap(({ partition, from, to, crashes }) => {
        return Array.from({ length: to - from }, (_, place) => `${partition}/${from + place} ${crashes}`)
      })
      return [String(subscription), offsets]
    }),
  )
}

export async function withClient<Value>(url: string, use: (client: Client) => Promise<Value>): Promise<Value> {
  const getTypeParser = ((oid: number, format?: 'text') => {
    return oid === INT8 ? Number : types.getTypeParser(oid, format)
  }) as typeof types.getTypeParser
  const client = new Client({ connectionString: url, types: { getTypeParser } })
  await client.connect()
  try {
    await client.query('SET search_path = posthorn')
    return await use(client)
  } finally {
    await client.end()
  }
}

// A batch's checksum covers the id of its topic, which is another one elsewhere.
function checked(batches: readonly Row[]): Row[] {
  return batches.map(({ topicId, checksum, ...batch }) => {
    const isIntact = batchChecksum({ ...batch, topicId } as Parameters<typeof batchChecksum>[0]) === checksum
    return { ...batch, isIntact }
  })
}

function hashed(row: Row): Row {
  return { ...row, id: row.id === null ? null : uuidOf(idHash(String(row.id))) }
}

function uuidOf(hash: string): string {
  return hash.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

function sortedIds(ids: readonly Row[]): Row[] {
  return ids.toSorted((one, other) => (String(one.id) < String(other.id) ? -1 : 1))
}
