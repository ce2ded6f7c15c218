/**
 * Views for people with an SQL prompt. They lock nothing; what they read of the tables may change with any release, and
 * they do not.
 */
export const CREATE_VIEWS = `
-- The JSON of a batch. What jsonb has no room for (NUL, halves of surrogate pairs) is shown as U+FFFD, and what is no
-- JSON because it was damaged, as nothing: one message must not keep all others from being looked at.
CREATE FUNCTION @.shown(stored text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog AS $$
BEGIN
  RETURN stored::jsonb;
EXCEPTION WHEN data_exception THEN
  BEGIN
    RETURN regexp_replace(stored, '(?<!\\\\)((?:\\\\\\\\)*)\\\\u(?:0000|d[89a-f][0-9a-f]{2})', '\\1\\\\ufffd', 'gi')::jsonb;
  EXCEPTION WHEN data_exception THEN
    RETURN NULL;
  END;
END $$;

-- When a message was published. What is no time because it was damaged is shown as nothing, for the same reason.
CREATE FUNCTION @.shown_time(stored text) RETURNS timestamptz LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog AS $$
BEGIN
  RETURN stored::timestamptz;
EXCEPTION WHEN data_exception THEN
  RETURN NULL;
END $$;

-- One row for each message that is kept.
CREATE VIEW @.messages AS
SELECT t.topic,
       b.partition,
       b.base_offset + message.number - 1                            AS "offset",
       message.own ->> 'id'                                          AS id,
       message.shared ->> 'type'                                     AS type,
       message.own ->> 'subject'                                     AS subject,
       @.shown_time(message.own ->> 'time')                          AS time,
       message.own -> 'data'                                         AS data,
       '{"specversion":"1.0"}'::jsonb || message.shared || message.own AS event
  FROM @.batches b
  JOIN @.topics t ON t.topic_id = b.topic_id
  JOIN @.ends e ON e.topic_id = b.topic_id AND e.partition = b.partition AND b.base_offset >= e.first_offset
 CROSS JOIN LATERAL (
         SELECT attributes.shared, one.own, one.number
           FROM (SELECT @.shown(b.shared) AS shared, @.shown(b.data) AS list OFFSET 0) attributes
          CROSS JOIN LATERAL jsonb_array_elements(
                 CASE jsonb_typeof(attributes.list) WHEN 'array' THEN attributes.list END)
                 WITH ORDINALITY AS one(own, number)) message;

-- One row for each subscription: what it has before it, and what it has in hand.
CREATE VIEW @.backlog AS
SELECT t.topic,
       s.subscription,
       s.paused,
       ahead.messages                                                AS backlog,
       ahead.oldest                                                  AS oldest,
       under_way.leased                                              AS leased,
       under_way.returned                                            AS returned,
       coalesce((newest.state ->> 'setAside')::bigint, 0)            AS set_aside,
       (SELECT count(*) FROM @.dead_letters d
         WHERE d.subscription_id = s.subscription_id)                AS dead_letters
  FROM @.subscriptions s
  JOIN @.topics t ON t.topic_id = s.topic_id
 CROSS JOIN LATERAL (SELECT v.state::jsonb AS state FROM @.states v
                      WHERE v.subscription_id = s.subscription_id ORDER BY v.version DESC LIMIT 1) newest
 CROSS JOIN LATERAL (
         SELECT coalesce(sum(part.messages), 0)::bigint AS messages,
                to_timestamp(min(part.first_time_ms) / 1000.0) AS oldest
           FROM (SELECT greatest(0, e.next_offset - place."offset" - (
                          SELECT count(*) FROM @.cancelled c
                           WHERE c.topic_id = e.topic_id AND c.partition = e.partition
                             AND c."offset" >= place."offset")) AS messages,
                        (SELECT b.first_time_ms FROM @.batches b
                          WHERE b.topic_id = e.topic_id AND b.partition = e.partition
                            AND b.base_offset <= place."offset" AND place."offset" < e.next_offset
                          ORDER BY b.base_offset DESC LIMIT 1) AS first_time_ms
                   FROM @.ends e
                  CROSS JOIN LATERAL (
                          SELECT greatest(e.first_offset, coalesce((
                                   SELECT (cursor -> 1)::bigint
                                     FROM jsonb_array_elements(newest.state -> 'cursors') AS cursors(cursor)
                                    WHERE (cursor -> 0)::int = e.partition), 0)) AS "offset") place
                  WHERE e.topic_id = s.topic_id) part) ahead
 CROSS JOIN LATERAL (
         SELECT (SELECT coalesce(sum(CASE WHEN run.number % 2 = 0 THEN run.place::bigint ELSE -run.place::bigint END), 0)::bigint
                   FROM jsonb_array_elements(newest.state -> 'leases') AS leases(lease)
                  CROSS JOIN LATERAL jsonb_array_elements(lease -> 'open') WITH ORDINALITY AS run(place, number)) AS leased,
                (SELECT coalesce(sum((range -> 2)::bigint - (range -> 1)::bigint), 0)::bigint
                   FROM jsonb_array_elements(newest.state -> 'returned') AS ranges(range)) AS returned) under_way;
`
