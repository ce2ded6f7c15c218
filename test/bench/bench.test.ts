import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, type TestContext, test } from 'node:test'
import { signup } from '../../bench/signup.ts'
import { ADDRESS_VARIABLE, whyNoPostgres } from '../servers/shared-postgres.ts'

const program = join(import.meta.dirname, '../../bench/main.ts')

// The server of the test run, where there is one already.
const sharedServer = process.env[ADDRESS_VARIABLE] ?? ''
const reason = await whyNoPostgres()

const figureNames = [
  'fdatasync_ms_p50',
  'fdatasync_ms_p99',
  'ceiling_publish_per_s',
  'ceiling_read_per_s',
  'publish_one_ms_p50',
  'publish_one_ms_p99',
  'publish_inflight_100_per_s',
  'publish_inflight_per_s',
  'publish_bulk_per_s',
  'publish_loop_delay_ms_p99',
  'drain_per_s',
  'drain_10k_per_s',
  'drain_deep_per_s',
  'drain_deep_messages',
  'drain_20ms_handlers_per_s',
  'drain_20ms_handlers_ratio',
  'fanout12_deliveries_per_s',
  'live_ms_p50',
  'live_ms_p99',
  'ordered_drain_per_s',
  'ordered_drain_2_processes_per_s',
  'ordered_drain_100_keys_per_s',
  'ordered_drain_million_keys_per_s',
  'ordered_drain_million_keys_2_processes_per_s',
  'rate_limited_max_per_s',
  'rate_limited_per_s',
  'steps_per_s',
  'rss_publish_bulk_mb',
  'rss_drain_mb',
  'rss_drain_deep_mb',
  'rss_drain_deep_small_heap_mb',
  'rss_fanout12_mb',
  'rss_live_mb',
  'rss_mb_max',
]

const figuresOf: Readonly<Record<string, readonly string[]>> = {
  memory: figureNames,
  postgres: [
    ...[...figureNames, 'transactional_per_s', 'drain_held_transaction_per_s', 'fanout12_held_transaction_per_s'],
    ...['drain_held_transaction_ratio', 'fanout12_held_transaction_ratio'],
    ...['outbox_per_s', 'outbox_to_handler_ms_p50', 'outbox_to_handler_ms_p99', 'storage_messages'],
    ...['storage_published_mb', 'storage_first_half_tables_mb', 'storage_second_half_tables_mb'],
    ...['storage_first_half_indexes_mb', 'storage_second_half_indexes_mb'],
  ],
}

/** Runs the benchmark with a temporary folder of its own. */
async function runBench(t: TestContext, ...parameters: readonly string[]) {
  const temporary = await mkdtemp(join(tmpdir(), 'posthorn-bench-test-'))
  t.after(() => rm(temporary, { recursive: true, force: true }))
  const conditions = process.execArgv.filter((parameter) => parameter.startsWith('--conditions'))
  // A server that the benchmark starts may be another user's, who is to find the way through.
  await chmod(temporary, 0o755)
  const env = { ...process.env, TMPDIR: temporary, POSTHORN_BENCH_POSTGRES_URL: sharedServer }
  const child = spawn(process.execPath, [...conditions, program, ...parameters], { env, timeout: 120_000 })
  const [output, errors, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { code, output, errors, leftBehind: await readdir(temporary) }
}

describe('the benchmark', { concurrency: true }, () => {
  for (const [engine, wanted] of Object.entries(figuresOf)) {
    const skip = engine === 'postgres' && reason
    test(`measures every figure on ${engine}, and leaves nothing behind`, { skip }, async (t) => {
      const { code, output, errors, leftBehind } = await runBench(t, '--tiny', '--json', '--engine', engine)
      assert.equal(code, 0, errors)
      const { engine: measured, scale, node, ...figures } = JSON.parse(output)
      assert.deepEqual({ measured, scale, node }, { measured: engine, scale: 'tiny', node: process.version })
      assert.deepEqual(Object.keys(figures).toSorted(), wanted.toSorted())
      for (const [name, value] of Object.entries(figures)) assert.ok(Number.isFinite(value), `${name} is ${value}`)
      assert.deepEqual(leftBehind, [])
    })
  }

  // All that is not measured alike on memory.
  test('measures transactions on sqlite, and leaves nothing behind', async (t) => {
    const { code, output, errors, leftBehind } = await runBench(t, '--tiny', '--json', '--only', 'transactional')
    assert.equal(code, 0, errors)
    const { engine, transactional_per_s: perSecond, fdatasync_ms_p50: syncMs } = JSON.parse(output)
    assert.equal(engine, 'sqlite')
    assert.ok(Number.isFinite(perSecond) && Number.isFinite(syncMs), output)
    assert.deepEqual(leftBehind, [])
  })

  test('prints a table with the ratio to what the machine can do at best', async (t) => {
    const { output, errors } = await runBench(t, '--tiny', '--only', 'publish-bulk')
    assert.match(output, /^publish_bulk_per_s +[\d,]+ {2}\d+\.\d\d x ceiling_publish_per_s$/m, errors)
  })

  test('refuses a scenario that does not exist', async (t) => {
    const { code, output, errors } = await runBench(t, '--only', 'nonsense')
    assert.equal(code, 2)
    assert.equal(output, '')
    assert.match(errors, /There is no scenario nonsense\./)
  })

  test('publishes events of 220 bytes', () => {
    assert.equal(Buffer.byteLength(JSON.stringify(signup(7))), 220)
  })
})
