import { statements } from '../database/statement.ts'

/** No record batch holds more messages: what holds an offset begins less than so many before it. */
const BATCH_MESSAGES_MAX = 1_000

/** Small batches are looked through by the thousand. */
const BATCHES_AT_ONCE = 4_000

export const cancellation = statements('cancellation', {
  // The youngest, should there be several. One that enters the log meanwhile is waited for, and not found any more.
  deleteDelayed: `
    DELETE FROM @.delayed WHERE delayed_id =
      (SELECT delayed_id FROM @.delayed WHERE topic_id = $1 AND id_hash = $2
        ORDER BY time_ms DESC, deliver_at_ms DESC, delayed_id DESC LIMIT 1 FOR UPDATE)`,

  redriven: `
    SELECT r.partition, r."offset", r.event
      FROM @.subscriptions s JOIN @.set_aside r USING (subscription_id)
     WHERE s.topic_id = $1 AND r.id_hash = $2`,

  // Of messages that were set aside, and are to be read from the log.
  firstRows: `
    SELECT r.partition, min(r."offset") AS "offset"
      FROM @.subscriptions s JOIN @.set_aside r USING (subscription_id)
     WHERE s.topic_id = $1 AND r.event IS NULL
     GROUP BY r.partition`,

  // The last batch of each partition that begins at or before an offset.
  batchesBefore: `
    SELECT place.partition, batch.base_offset AS "baseOffset", batch.count, batch.last_time_ms AS "lastTimeMs"
      FROM unnest($2::int[], $3::bigint[]) AS place(partition, "offset")
     CROSS JOIN LATERAL (SELECT base_offset, count, last_time_ms FROM @.batches b
                          WHERE b.topic_id = $1 AND b.partition = place.partition AND b.base_offset <= place."offset"
                          ORDER BY b.base_offset DESC LIMIT 1) batch`,

  // Batches of a time ($5) that may hold an id ($6). Their text is read last, and only where the rest fits.
  batchesAtTime: `
    SELECT candidate.partition, candidate.base_offset AS "baseOffset", candidate.count
      FROM (SELECT b.partition, b.base_offset, b.count, b.data
              FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS place(partition, first_offset, last_offset)
              JOIN @.batches b ON b.topic_id = $1 AND b.partition = place.partition
                              AND b.base_offset >= place.first_offset AND b.base_offset <= place.last_offset
             WHERE b.first_time_ms <= $5 AND b.last_time_ms >= $5
            OFFSET 0) candidate
     WHERE strpos(candidate.data, $6) > 0
     ORDER BY candidate.partition, candidate.base_offset`,

  // A stretch of batches from an offset on, up to about $5 bytes: where it ends (null: there are none), and which of them
  // may hold an id, as [base_offset, count].
  lookThrough: `
    SELECT max(base_offset + count) AS "nextOffset",
           coalesce(json_agg(json_build_array(base_offset, count)) FILTER (WHERE strpos(data, $4) > 0), '[]') AS found
      FROM (SELECT base_offset, count, data, sum(bytes) OVER (ORDER BY base_offset) - bytes AS bytes_before
              FROM @.batches
             WHERE topic_id = $1 AND partition = $2 AND base_offset > $3::bigint - ${BATCH_MESSAGES_MAX}
               AND base_offset + count > $3
             ORDER BY base_offset LIMIT ${BATCHES_AT_ONCE}) stretch
     WHERE bytes_before < $5`,

  noteCancelled: `UPDATE @.topics SET has_cancelled = true WHERE topic_id = $1 AND NOT has_cancelled`,

  isCancelled: `SELECT FROM @.cancelled WHERE topic_id = $1 AND partition = $2 AND "offset" = $3`,

  cancel: `
    INSERT INTO @.cancelled (topic_id, partition, "offset") VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
})
