import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { Losses } from '../../../src/engines/postgres/consumers/losses.ts'
import { Session } from '../../../src/engines/postgres/consumers/session.ts'
import { Watch } from '../../../src/engines/postgres/consumers/watch.ts'
import { Turns } from '../../../src/engines/postgres/delivery/turns.ts'
import { type Clock, silentLogger, systemClock } from '../../../src/environment/index.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { openWorld, type SettlementWorld } from './settlement-world.ts'
import { query } from './space.ts'

const LEASE_MS = 3_000
const STEP_MS = LEASE_MS / 3
const SHORT_LEASE_MS = 150

/** A process: its session, and its eye on those of others. */
class Process {
  readonly session: Session
  readonly watch: Watch
  readonly lost: { readonly sessionId: string; readonly reason: string }[] = []
  readonly givenUp: number[] = []
  readonly troubles: Error[] = []

  constructor(world: SettlementWorld, clock: Clock, leaseMs: number) {
    const { database } = world
    const losses = new Losses(database, new Turns(database, clock), world.settling)
    const onLost = (lost: { sessionId: string; reason: string }) => void this.lost.push(lost)
    this.session = new Session({ database, clock, logger: silentLogger, leaseMs, losses, onLost })
    this.watch = new Watch({
      rows: database,
      clock,
      losses,
      leaseMs,
      ownSession: () => this.session.id,
      onGivenUp: (subscriptionIds) => this.givenUp.push(...subscriptionIds),
      onTrouble: (error) => this.troubles.push(error),
    })
  }

  async start(): Promise<this> {
    await this.session.start()
    await this.watch.start()
    return this
  }

  async idle(): Promise<void> {
    await this.session.idle()
    await this.watch.idle()
  }

  async kill(): Promise<void> {
    await this.session.kill()
    await this.watch.stop()
  }
}

async function start(context: TestContext, world: SettlementWorld, clock: Clock = world.clock): Promise<Process> {
  const process = new Process(world, clock, clock.real ? SHORT_LEASE_MS : LEASE_MS)
  context.after(() => process.kill())
  return process.start()
}

async function advance(world: SettlementWorld, processes: readonly Process[], durationMs: number): Promise<void> {
  for (let passedMs = 0; passedMs < durationMs; passedMs += STEP_MS) {
    await world.clock.advance(STEP_MS)
    for (const process of processes) await process.idle()
  }
}

/** As a source does. */
async function enlist(world: SettlementWorld, { session }: Process, partition = 0): Promise<number> {
  const source = `${session.id}/1`
  await world.turn(async ({ state, rows }) => {
    assert.equal(await session.isStored(rows), true)
    state.sources.push(source)
    state.owners.set(partition, { source, announced: true })
  })
  return world.leaseFresh(partition, 0, 3, source)
}

function sessionIds(world: SettlementWorld): Promise<{ session_id: string; beat: number; consumes: boolean }[]> {
  return query(world.database, 'SELECT session_id, beat, consumes FROM @.sessions ORDER BY started_at_ms')
}

async function until(holds: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await holds())) await setImmediate()
}

describe('the sessions of a Postgres store', { skip: await whyNoPostgres() }, () => {
  test('live as long as they are renewed, and say when they consume', async (context) => {
    const world = await openWorld(context)
    const [one, other] = [await start(context, world), await start(context, world)]
    assert.notEqual(one.session.id, other.session.id)
    await enlist(world, one)
    await advance(world, [one, other], 5 * LEASE_MS)
    const stored = await sessionIds(world)
    assert.deepEqual(
      new Map(stored.map(({ session_id, consumes }) => [session_id, consumes])),
      new Map([
        [one.session.id, true],
        [other.session.id, false],
      ]),
    )
    for (const { beat } of stored) assert.ok(beat >= 14, `${beat} renewals`)
    assert.deepEqual([one.lost, other.lost, one.troubles, other.troubles], [[], [], [], []])
    assert.equal((await world.state()).leases.size, 1)
  })

  test('are not lost by a clock that is moved on by hours at once', async (context) => {
    const world = await openWorld(context)
    const processes = [await start(context, world), await start(context, world), await start(context, world)]
    for (let jump = 0; jump < 10; jump++) {
      await world.clock.advance(20 * LEASE_MS)
      for (const process of processes) await process.idle()
    }
    assert.equal((await sessionIds(world)).length, 3)
    for (const process of processes) assert.deepEqual(process.lost, [])
  })

  test('lose what they held when they die: a crash is counted, once, and nothing of them is left', async (context) => {
    const world = await openWorld(context, { ordered: true })
    const dead = await start(context, world)
    await enlist(world, dead)
    const source = `${dead.session.id}/1`
    await query(world.database, `INSERT INTO @.breakers VALUES (1, $1, '{}')`, source)
    await dead.kill()
    const others = [await start(context, world), await start(context, world)]
    await advance(world, others, 2 * LEASE_MS)
    const state = await world.state()
    assert.deepEqual([state.sources, [...state.owners], [...state.leases]], [[], [], []])
    assert.deepEqual(state.returned, [{ partition: 0, from: 0, to: 3, crashes: 1 }])
    assert.equal((await query(world.database, 'SELECT FROM @.breakers')).length, 0)
    assert.equal((await sessionIds(world)).length, 2)
    assert.deepEqual([...others[0]!.givenUp, ...others[1]!.givenUp], [1])
  })

  test('are given up at once by who comes after their lease, where time is held', async (context) => {
    const world = await openWorld(context)
    const dead = await start(context, world)
    await enlist(world, dead)
    await dead.kill()
    await world.clock.advance(LEASE_MS)
    const other = await start(context, world)
    assert.deepEqual(other.givenUp, [1])
  })

  test('are not given up by who saw an older beat', async (context) => {
    const world = await openWorld(context)
    const one = await start(context, world)
    await enlist(world, one)
    await advance(world, [one], LEASE_MS)
    const losses = new Losses(world.database, new Turns(world.database, world.clock), world.settling)
    assert.deepEqual(await losses.giveUp(one.session.id, 0), [])
    assert.equal((await world.state()).leases.size, 1)
    const [{ beat } = { beat: -1 }] = await sessionIds(world)
    assert.deepEqual(await losses.giveUp(one.session.id, beat), [1])
    assert.equal((await world.state()).leases.size, 0)
  })

  test('are told that they were given up, and go on as another', async (context) => {
    const world = await openWorld(context)
    const one = await start(context, world)
    const { id } = one.session
    await query(world.database, 'DELETE FROM @.sessions')
    await advance(world, [one], LEASE_MS)
    assert.deepEqual(
      one.lost.map(({ sessionId }) => sessionId),
      [id],
    )
    const stored = await sessionIds(world)
    assert.deepEqual(
      stored.map(({ session_id }) => session_id),
      [one.session.id],
    )
    assert.notEqual(one.session.id, id)
    await world.turn(async ({ rows }) => {
      assert.equal(await one.session.isStored(rows), true)
      assert.equal(await one.session.isStored(rows, id), false)
    })
  })

  test('are told so by a check, too, however many ask for one', async (context) => {
    const world = await openWorld(context)
    const one = await start(context, world)
    await one.session.check()
    assert.deepEqual(one.lost, [])
    await query(world.database, 'DELETE FROM @.sessions')
    await Promise.all([one.session.check(), one.session.check(), one.session.check()])
    assert.equal(one.lost.length, 1)
    assert.equal((await sessionIds(world)).length, 1)
  })

  test('give back what they still hold when they stop, with no crash counted', async (context) => {
    const world = await openWorld(context)
    const one = await start(context, world)
    await enlist(world, one)
    await one.session.stop()
    assert.deepEqual((await world.state()).returned, [{ partition: 0, from: 0, to: 3, crashes: 0 }])
    assert.deepEqual(await sessionIds(world), [])
  })

  test('that are not there lose what is enlisted under them', async (context) => {
    const world = await openWorld(context)
    const one = await start(context, world)
    await world.turn(async ({ state }) => void state.sources.push('gone/1'))
    await world.leaseFresh(0, 0, 2, 'gone/1')
    await advance(world, [one], 3 * LEASE_MS)
    const state = await world.state()
    assert.deepEqual([state.sources, state.returned], [[], [{ partition: 0, from: 0, to: 2, crashes: 1 }]])
  })

  test('cannot be enlisted once they are being given up', async (context) => {
    const world = await openWorld(context)
    const one = await start(context, world)
    await enlist(world, one)
    const losses = new Losses(world.database, new Turns(world.database, world.clock), world.settling)
    const [{ beat } = { beat: -1 }] = await sessionIds(world)
    const given = losses.giveUp(one.session.id, beat)
    const enlisted = world.turn(async ({ rows, state }) => {
      const isStored = await one.session.isStored(rows)
      if (isStored) state.sources.push(`${one.session.id}/2`)
    })
    await Promise.all([given, enlisted])
    await losses.giveUp(one.session.id, beat)
    assert.deepEqual((await world.state()).sources, [])
  })
})

describe('the session of a Postgres process in real time', { skip: await whyNoPostgres() }, () => {
  test('is renewed while the event loop is blocked, for as long as that is trusted', async (context) => {
    const world = await openWorld(context)
    const { session, lost } = new Process(world, systemClock, SHORT_LEASE_MS)
    session.trust(60_000)
    await session.start()
    const { leasedUntilMs } = session
    while (session.leasedUntilMs < leasedUntilMs + 2 * SHORT_LEASE_MS);
    assert.deepEqual(lost, [])
    await session.stop()
    assert.deepEqual(await sessionIds(world), [])
  })

  test('is not renewed while the event loop is silent for longer than that, and again when it is back', async (context) => {
    const world = await openWorld(context)
    const { session } = new Process(world, systemClock, SHORT_LEASE_MS)
    await session.start()
    const started = session.leasedUntilMs
    await until(() => session.leasedUntilMs > started)
    while (systemClock.now() <= session.leasedUntilMs + SHORT_LEASE_MS);
    await until(() => session.leasedUntilMs > systemClock.now())
    await session.stop()
  })

  test('is told that it was given up, and why', async (context) => {
    const world = await openWorld(context)
    const { session, lost } = new Process(world, systemClock, SHORT_LEASE_MS)
    await session.start()
    const { id } = session
    const started = session.leasedUntilMs
    await until(() => session.leasedUntilMs > started)
    await query(world.database, 'DELETE FROM @.sessions')
    await until(() => lost.length > 0)
    assert.equal(lost[0]!.sessionId, id)
    assert.match(lost[0]!.reason, /it was not renewed for \d+ ms/)
    const after = session.leasedUntilMs
    await until(() => session.leasedUntilMs > after)
    assert.deepEqual(
      (await sessionIds(world)).map(({ session_id }) => session_id),
      [session.id],
    )
    await session.stop()
  })

  test('outlives its connection', async (context) => {
    const world = await openWorld(context)
    const { session, lost } = new Process(world, systemClock, SHORT_LEASE_MS)
    await session.start()
    const started = session.leasedUntilMs
    await until(() => session.leasedUntilMs > started)
    const cut = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE pid <> pg_backend_pid() AND query LIKE 'UPDATE "' || $1 || '".sessions%'`
    await until(async () => (await query(world.database, cut, world.database.address.schema)).length > 0)
    const after = systemClock.now() + SHORT_LEASE_MS
    await until(() => session.leasedUntilMs > after)
    assert.deepEqual(lost, [])
    await session.stop()
  })

  test('ends nobody else: those who die are found by those who live', async (context) => {
    const world = await openWorld(context)
    const [dead, other] = [await start(context, world, systemClock), await start(context, world, systemClock)]
    await enlist(world, dead)
    await dead.kill()
    await until(async () => (await world.state()).leases.size === 0)
    assert.deepEqual(
      (await sessionIds(world)).map(({ session_id }) => session_id),
      [other.session.id],
    )
    assert.deepEqual(other.lost, [])
    await other.watch.stop()
    await other.session.stop()
  })
})
