/** No room left: publishers are told, nothing acknowledged is lost, and all goes on once there is room. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, fsyncSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { Bench, coded, dataOf, eventually, HERE, newFile, type Reader, sql } from './bench.ts'

const LIMIT_BYTES = 512 * 1024
const LARGE = 'x'.repeat(8_000)

describe('a file at its limit', { concurrency: 2 }, () => {
  test('publish says so, consumers go on, and a higher limit mends it', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, `${file}?maxBytes=${LIMIT_BYTES}`)
    const stored = await fill(bench)
    const reader = await bench.source()
    assert.equal((await reader.take(stored)).length, stored)
    await bench.engine.close()
    const roomier = await Bench.open(context, `${file}?maxBytes=${4 * LIMIT_BYTES}`)
    await roomier.publish(['there is room'])
    assert.deepEqual(await (await roomier.source()).take(1), ['there is room'])
  })

  test('a queue makes room for itself: what is settled is deleted', async (context) => {
    const bench = await Bench.make(context, `${newFile(context)}?maxBytes=${LIMIT_BYTES}`, { kind: 'queue' })
    const stored = await fill(bench)
    const reader = await bench.source()
    await reader.take(stored)
    await bench.publish([LARGE])
    await reader.take(1)
  })

  test('a publish that does not fit fails alone, though others share its commit', async (context) => {
    const bench = await Bench.make(context, `${newFile(context)}?maxBytes=${LIMIT_BYTES}`)
    const tooLarge = bench.publish(Array.from({ length: 100 }, () => LARGE))
    const small = [bench.publish(['a']), bench.publish(['b'])]
    await assert.rejects(tooLarge, coded('POSTHORN_STORAGE_FULL'))
    await Promise.all(small)
    assert.deepEqual(await (await bench.source()).take(2), ['a', 'b'])
  })

  test('a pull that waits is answered though the publish beside it fails', async (context) => {
    const bench = await Bench.make(context, `${newFile(context)}?maxBytes=${LIMIT_BYTES}`)
    const reader = await bench.source()
    const waiting = reader.pull()
    const tooLarge = bench.publish(Array.from({ length: 100 }, () => LARGE))
    const small = bench.publish(['a'])
    await assert.rejects(tooLarge, coded('POSTHORN_STORAGE_FULL'))
    await small
    assert.deepEqual(dataOf(await waiting), ['a'])
  })

  test('a delayed message that finds no room comes when there is some', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, `${file}?maxBytes=${LIMIT_BYTES}`)
    await bench.publish(['x'.repeat(30_000)], { deliverAtMs: Date.now() + 2_000 })
    const stored = await fill(bench)
    await eventually(() => assert.ok(dueSince(file) > 300, 'not due yet'))
    assert.equal(sql(file, 'SELECT * FROM posthorn_delayed').length, 1)
    const reader = await bench.source()
    await reader.take(stored)
    await bench.engine.close()
    const roomier = await Bench.open(context, file)
    assert.deepEqual(await (await roomier.source()).take(1), ['x'.repeat(30_000)])
  })
})

describe('a full disk', () => {
  test('nothing acknowledged is lost, no lease is lost, and everything recovers', async (context) => {
    const path = smallDisk(context)
    if (!path) return context.skip('a small file system can only be mounted by root')
    const file = join(path, 'store.db')
    const bench = await Bench.make(context, file, { leaseMs: 600 })
    await bench.publish(['held'])
    const reader = await bench.source()
    const held = await reader.pull()
    const filler = join(path, 'filler')
    const acknowledged = await exhaust(bench, filler)
    const settling = settleUntilRecorded(reader, held)
    const sessionBefore = (await bench.engine.admin.consumers())[0]!
    await eventually(() => assert.ok(Date.now() > sessionBefore.leaseUntilMs, 'the lease runs'))
    rmSync(filler)
    await settling
    await bench.publish(['there is room'])
    const data = await reader.take(acknowledged + 1)
    assert.equal(data.at(-1), 'there is room')
    assert.deepEqual(await bench.engine.admin.checkIntegrity(), [])
    assert.deepEqual(await bench.engine.admin.deadLetters(HERE, { limit: 1 }), [])
    assert.equal((await bench.state()).leased, 0)
  })
})

/** Publishes until there is no room. Returns how many messages were stored. */
async function fill(bench: Bench): Promise<number> {
  for (let stored = 0; ; stored++) {
    try {
      await bench.publish([LARGE])
    } catch (error) {
      coded('POSTHORN_STORAGE_FULL')(error)
      assert.equal((error as { retryable?: boolean }).retryable, true)
      assert.ok(stored > 10)
      const [topic] = await bench.engine.admin.topics()
      assert.equal(topic?.messages, stored)
      return stored
    }
  }
}

/** Fills the disk, by a file beside the store and then by the store itself. Returns how many messages were stored. */
async function exhaust(bench: Bench, filler: string): Promise<number> {
  const descriptor = openSync(filler, 'w')
  try {
    for (;;) writeSync(descriptor, Buffer.alloc(4_096))
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
  } finally {
    fsyncSync(descriptor)
    closeSync(descriptor)
  }
  for (let stored = 0; ; stored++) {
    try {
      await bench.publish([LARGE])
    } catch (error) {
      coded('POSTHORN_STORAGE_FULL')(error)
      for (let again = 0; again < 5; again++) {
        await assert.rejects(bench.publish([LARGE]), coded('POSTHORN_STORAGE_FULL'))
      }
      return stored
    }
  }
}

/** As consumers do: what was not recorded is tried again. */
async function settleUntilRecorded(reader: Reader, grants: Awaited<ReturnType<Reader['pull']>>): Promise<void> {
  await eventually(async () => {
    const failure = await reader.ack(grants).then(
      (fenced) => {
        assert.equal(fenced.length, 0)
        return undefined
      },
      (error: unknown) => error,
    )
    if (failure !== undefined) coded('POSTHORN_STORAGE_FULL')(failure)
    assert.equal(failure, undefined)
  })
}

function smallDisk(context: TestContext): string | undefined {
  if (process.getuid?.() !== 0) return undefined
  const path = mkdtempSync(join(tmpdir(), 'posthorn-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', path], { stdio: 'ignore' })
  } catch {
    rmdirSync(path)
    return undefined
  }
  context.after(() => {
    execFileSync('umount', ['--lazy', path])
    rmdirSync(path)
  })
  return path
}

function dueSince(file: string): number {
  const [row] = sql(file, 'SELECT min(due_at_ms) AS due FROM posthorn_delayed')
  return Date.now() - Number(row?.due)
}
