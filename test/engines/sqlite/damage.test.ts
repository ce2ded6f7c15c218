/** Flipped bits, truncated files and rows that make no sense cost what they hit, and nothing else. */
import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync, statSync, truncateSync, writeSync } from 'node:fs'
import { describe, test } from 'node:test'
import { PosthornError } from '../../../src/errors.ts'
import { Bench, coded, eventually, HERE, newFile, SUBSCRIPTION, sql, TOPIC } from './bench.ts'

/** Ways in which one batch, at offset 2 and 3, is damaged. */
const DAMAGES = {
  'its data': `UPDATE posthorn_batches SET data = replace(data, '"d"', '"D"')`,
  'its data, so that it is no JSON': `UPDATE posthorn_batches SET data = x'7b00ff'`,
  'its shared attributes': `UPDATE posthorn_batches SET shared = replace(shared, '{', '[')`,
  'its checksum': 'UPDATE posthorn_batches SET crc32 = crc32 + 1',
}

describe('damage', { concurrency: 2 }, () => {
  for (const [what, damage] of Object.entries(DAMAGES)) {
    test(`a batch is damaged in ${what}: it is lost alone, and everybody is told`, async (context) => {
      const file = newFile(context)
      const bench = await Bench.make(context, file)
      for (const batch of [['a', 'b'], ['c', 'd'], ['e']]) await bench.publish(batch)
      sql(file, `${damage} WHERE base_offset = 2`)
      const reader = await bench.source()
      assert.deepEqual(await reader.take(3), ['a', 'b', 'e'])
      await eventually(() => assert.equal(reader.damage.length, 1))
      coded('POSTHORN_BATCH_CORRUPT')(reader.damage[0])
      assert.deepEqual((reader.damage[0] as PosthornError).details, { topic: TOPIC, partition: 0, from: 2, to: 3 })
      const letters = await bench.engine.admin.deadLetters(HERE, { limit: 10 })
      assert.deepEqual(
        letters.map(({ offset, reason, event }) => ({ offset, reason, event })),
        [2, 3].map((offset) => ({ offset, reason: 'damaged', event: undefined })),
      )
      assert.ok(
        (await bench.engine.admin.checkIntegrity()).some((text) => /Messages 2 to 3 of topic events/.test(text)),
      )
      assert.equal((await bench.state()).leased, 0)
    })
  }

  test('a retry whose batch was damaged meanwhile becomes a dead letter that keeps its history', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(['a'])
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const failure = { attempt: 1, atMs: 1, name: 'Error', message: 'first' }
    const exceptions = [{ offset: 0, kind: 'retry', dueAtMs: 1, failure }] as const
    await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
    await bench.engine.close()
    sql(file, `UPDATE posthorn_batches SET data = x'00'`)
    const later = await Bench.open(context, file)
    assert.deepEqual(await (await later.source()).pullNow(), [])
    const [letter] = await eventually(async () => {
      const letters = await later.engine.admin.deadLetters(HERE, { limit: 10 })
      assert.equal(letters.length, 1)
      return letters
    })
    assert.partialDeepStrictEqual(letter, { reason: 'damaged', attempts: 2 })
    assert.equal(letter!.failures[0]?.message, 'first')
  })

  test('peek, a replay by time and the view pass a damaged batch over', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(['a'])
    await bench.publish(['b'])
    sql(file, `UPDATE posthorn_batches SET data = x'00' WHERE base_offset = 0`)
    const peeked = await bench.engine.admin.peek(TOPIC, { partition: 0, fromOffset: 0, limit: 10 })
    assert.deepEqual(
      peeked.map(({ message }) => message.offset),
      [1],
    )
    await bench.engine.admin.seek(HERE, { timeMs: 0 })
    assert.equal((await bench.state()).positions[0]?.offset, 0)
    assert.equal(sql(file, 'SELECT * FROM posthorn_messages').length, 1)
  })

  test('a truncated file answers with a coded error, again and again', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(Array.from({ length: 500 }, (_, number) => `${number} ${'x'.repeat(500)}`))
    await bench.engine.close()
    truncateSync(file, Math.floor(statSync(file).size / 2 / 4096) * 4096)
    const problem = await useIt(context, file)
    assert.ok(problem.length > 0)
    for (const code of problem) assert.ok(['POSTHORN_STORAGE_CORRUPT', 'POSTHORN_BATCH_CORRUPT'].includes(code), code)
  })

  test('a garbled file answers with a coded error', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(Array.from({ length: 100 }, (_, number) => `${number} ${'x'.repeat(500)}`))
    await bench.engine.close()
    const descriptor = openSync(file, 'r+')
    // Past the first page, which says that this is a database.
    for (let place = 4096; place < readFileSync(file).length; place += 97) writeSync(descriptor, 'garbage', place)
    closeSync(descriptor)
    const problem = await useIt(context, file)
    assert.ok(problem.length > 0)
    for (const code of problem) assert.match(code, /^POSTHORN_/)
  })

  for (const [what, change] of Object.entries({
    'a range that is far too long': 'to_offset = 1000000000000000',
    'a range of text': `from_offset = 'x', to_offset = 'y'`,
    'a range that ends before it begins': 'from_offset = 9, to_offset = 2',
    'bits that do not fit': `settled = randomblob(1000)`,
    'a subscription that is not there': 'subscription_id = 99',
  })) {
    test(`a lease with ${what} does not take the process down`, async (context) => {
      const file = newFile(context)
      const bench = await Bench.make(context, file, { leaseMs: 300 })
      await bench.engine.ensureTopic({ ...topicNamed('sound') })
      await bench.subscription({ topic: 'sound' })
      await bench.publish(['a', 'b'])
      const held = await bench.source()
      const grants = await held.pull()
      sql(file, `UPDATE posthorn_leases SET ${change}, session_id = NULL`)
      const waiting = (await bench.source()).pullNow()
      await Promise.allSettled([held.ack(grants), waiting, bench.engine.admin.subscriptions()])
      await bench.publish(['fine'], { topic: 'sound' })
      assert.deepEqual(await (await bench.source({ topic: 'sound' })).take(1), ['fine'])
      assert.ok((await bench.engine.admin.checkIntegrity()).some((text) => /lease/i.test(text)))
    })
  }
})

function topicNamed(topic: string) {
  const retention = { maxAgeMs: 1e9, dropUnread: false }
  return { topic, kind: 'topic', partitions: 1, deduplicationWindowMs: 1_000, retention } as const
}

/** Uses a broken store in every way. Returns the codes of the errors; anything else fails the test. */
async function useIt(context: Parameters<typeof Bench.open>[0], file: string): Promise<string[]> {
  const codes: string[] = []
  const note = (error: unknown) => {
    assert.ok(error instanceof PosthornError, String(error))
    codes.push(error.code)
  }
  const bench = await Bench.open(context, file).catch(note)
  if (!bench) return codes
  const reader = await bench.source({ subscription: SUBSCRIPTION }).catch(note)
  for (let round = 0; round < 3; round++) {
    await reader?.pullNow().catch(note)
    await bench.publish(['y'.repeat(5_000)]).catch(note)
    await bench.engine.admin.subscriptions().catch(note)
  }
  await bench.engine.close().catch(note)
  for (const error of reader?.damage ?? []) note(error)
  return codes
}
