/** The settlement of the Postgres engine against that of the memory engine, which states the rules most plainly. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { DeadLetter, SettledException, Settlement } from '../../../src/engine.ts'
import { FIRST_DELIVERY, Lease, type LeaseHolder } from '../../../src/engines/memory/delivery/leases.ts'
import type { MemoryEngine } from '../../../src/engines/memory/memory-engine.ts'
import { MemoryAdmin } from '../../../src/engines/memory/operators/admin.ts'
import { dueAtMs, type Row as MemoryRow } from '../../../src/engines/memory/settlement/set-aside.ts'
import { Settling } from '../../../src/engines/memory/settlement/settlement.ts'
import { MemoryStore } from '../../../src/engines/memory/store.ts'
import type { Subscription } from '../../../src/engines/memory/subscription.ts'
import type { DeliveryState } from '../../../src/engines/postgres/delivery/delivery-state.ts'
import { contains } from '../../../src/engines/postgres/delivery/lease.ts'
import type { Row } from '../../../src/engines/postgres/settlement/set-aside.ts'
import { type Random, seededRandom } from '../../../src/environment/index.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { eventAt, failure, openWorld, PARTITIONS, type SettlementWorld, SOURCE } from './settlement-world.ts'

const REFERENCE = { topic: 'topic', subscription: 'subscription' }
const MESSAGES = 400
const ROUNDS = 40
const SEEDS = [1, 2, 3]

/** Both, given the same to do. */
class Twins {
  readonly world: SettlementWorld
  readonly store = new MemoryStore()
  readonly holder: LeaseHolder
  readonly memory: Subscription
  readonly admin: MemoryAdmin
  readonly next = new Array<number>(PARTITIONS).fill(0)

  constructor(world: SettlementWorld, ordered: boolean, maxCrashes: number) {
    this.world = world
    const topic = { topic: 'topic', kind: 'topic', partitions: PARTITIONS, deduplicationWindowMs: 0 } as const
    this.store.ensureTopic({ ...topic, retention: { maxAgeMs: 0, dropUnread: false } })
    for (let partition = 0; partition < PARTITIONS; partition++) this.#fill(partition)
    this.store.ensureSubscription({ ...REFERENCE, maxCrashes, ordered, maxParked: 1_000, start: { at: 'earliest' } }, 0)
    this.memory = this.store.subscription(REFERENCE)
    const nothing = () => {}
    this.holder = { session: undefined as never, leasesLost: nothing, cancelled: nothing, crowded: nothing }
    const engine = { store: this.store, begin: () => this.nowMs }
    this.admin = new MemoryAdmin(engine as unknown as MemoryEngine)
  }

  get nowMs(): number {
    return this.world.clock.now()
  }

  async leaseFresh(partition: number, count: number): Promise<void> {
    const from = this.next[partition]!
    const to = Math.min(MESSAGES, from + count)
    if (from === to) return
    this.next[partition] = to
    const id = await this.world.leaseFresh(partition, from, to)
    this.memory.move(partition, to)
    const kind = { row: undefined, isolated: false }
    this.memory.leases.set(id, new Lease(id, this.holder, { partition, from, to }, FIRST_DELIVERY, kind))
  }

  async leaseReturned(): Promise<void> {
    const leased = await this.world.turn(async ({ state }) => {
      return state.returned.splice(0).map(({ partition, from, to, crashes }) => {
        const isolated = crashes > 0 && to === from + 1
        return { ...state.lease({ source: SOURCE, partition, open: [from, to], crashes, isolated }), from, to }
      })
    })
    this.memory.returned.clear()
    for (const { id, partition, from, to, crashes, isolated } of leased) {
      const history = { ...FIRST_DELIVERY, crashes }
      this.memory.leases.set(
        id,
        new Lease(id, this.holder, { partition, from, to }, history, { row: undefined, isolated }),
      )
    }
  }

  /** Leases what is due and free; of what follows a row that is left out, nothing. */
  async leaseDue(random: Random, mayDiffer: boolean): Promise<void> {
    const left = new Set<string>()
    const chosen = await this.world.turn(async (turn) => {
      const due = await this.world.setAside.due(turn, 1_000, [0, 1])
      // In whatever order partitions come that are due at the same time.
      if (!mayDiffer) assert.deepEqual(due.toSorted(byTime).map(nameOf), this.#dueInMemory().map(nameOf))
      else assert.ok(due.length > 0 || this.#dueInMemory().length === 0, 'nothing is due')
      return due.flatMap(({ partition, offset, rowId, crashes, key, attempt, failures }) => {
        if (key !== undefined && (left.has(key) || random.number() < 0.2)) {
          left.add(key)
          return []
        }
        const row = this.#rowAt(partition, offset)
        assert.deepEqual([key, attempt, failures.length], [row.key, row.history.attempt, row.history.failures.length])
        const isolated = crashes > 0
        const open = [offset, offset + 1]
        return [{ row, lease: turn.state.lease({ source: SOURCE, partition, open, crashes, isolated, rowId }) }]
      })
    })
    for (const { row, lease } of chosen) {
      if (!mayDiffer) assert.ok(!this.memory.ordered || this.memory.chains.isFree(row), 'it is not free')
      this.memory.rows.lease(row)
      const range = { partition: row.partition, from: row.offset, to: row.offset + 1 }
      const { id, isolated } = lease
      this.memory.leases.set(id, new Lease(id, this.holder, range, row.history, { row, isolated }))
    }
  }

  async settle(settlements: readonly Settlement[]): Promise<void> {
    const fenced = await this.world.turn((turn) => this.world.settling.settle(turn, SOURCE, settlements))
    const expected: number[] = []
    const settling = this.settling()
    for (const settlement of settlements) {
      const lease = this.memory.leases.get(settlement.lease)
      if (lease) settling.settle(lease, settlement)
      else expected.push(settlement.lease)
    }
    assert.deepEqual(fenced, expected)
  }

  async giveBack(ids: readonly number[], kind: 'release' | 'lose'): Promise<void> {
    await this.world.turn(async (turn) => {
      await this.world.settling[kind](
        turn,
        ids.map((id) => turn.state.leases.get(id)!),
      )
    })
    this.settling()[kind](ids.map((id) => this.memory.leases.get(id)!))
  }

  async cancel(partition: number, offset: number): Promise<void> {
    const isFresh = offset >= this.next[partition]!
    const end = await this.world.turn((turn) => this.world.settling.cancel(turn, { partition, offset }, isFresh))
    assert.equal(end, this.settling().cancel({ partition, offset }))
  }

  async redrive(letters: readonly number[], perSecond: number): Promise<void> {
    const [stored, remembered] = await this.#idsOf(letters)
    const spacingMs = 1_000 / perSecond
    const count = await this.world.turn((turn) => this.world.deadLetters.redrive(turn, { ids: stored, spacingMs }))
    assert.equal(count, await this.admin.redrive(REFERENCE, { ids: remembered, perSecond }))
  }

  async deleteLetters(letters: readonly number[]): Promise<void> {
    const [stored, remembered] = await this.#idsOf(letters)
    const count = await this.world.turn((turn) => this.world.deadLetters.delete(turn, stored))
    assert.equal(count, await this.admin.deleteDeadLetters(REFERENCE, remembered))
  }

  async advanceAll(partition: number): Promise<void> {
    await this.world.turn((turn) => this.world.chains.advanceAll(turn, partition))
    this.memory.chains.advanceAll(partition, this.nowMs)
  }

  async recordSteps(): Promise<void> {
    for (const [id, lease] of this.memory.leases) {
      for (const { from } of lease.unsettledRuns()) await this.recordStep(id, from)
    }
  }

  async recordStep(id: number, offset: number): Promise<void> {
    const value = ['name\u0000', '{"problem":1}'] as const
    await this.world.turn((turn) => this.world.steps.record(turn, SOURCE, id, offset, ...value))
    const partition = this.memory.leases.get(id)!.range.partition
    this.memory.steps.record({ partition, offset }, ...value)
  }

  async compare(): Promise<void> {
    const state = await this.world.state()
    assert.deepEqual(await this.#storedRows(state), [...this.memory.rows].map(plainRow).toSorted(byPlace))
    assert.deepEqual(await this.#storedLetters(), Array.from(this.memory.deadLetters, plainLetter))
    assert.deepEqual(joined(state.returned), joined(this.memory.returned.all))
    assert.deepEqual(
      [...state.leases.values()].map(({ id, open }) => [id, ...open]),
      [...this.memory.leases.values()].map(plainLease),
    )
    assert.equal(state.setAside, this.memory.rows.size)
    const firstDueMs = Math.min(...[...this.memory.rows].filter((row) => !row.isLeased).map(dueAtMs))
    assert.ok(firstDueMs === Number.POSITIVE_INFINITY || state.dueAtMs! <= firstDueMs, 'something is due before')
    await this.#compareChains()
  }

  settling(): Settling {
    return new Settling(this.store, this.memory, this.nowMs)
  }

  async #compareChains(): Promise<void> {
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const found = await this.world.turn((turn) => this.world.chains.ofPartition(turn, partition))
      const byKey = (one: { key: string }, other: { key: string }) => (one.key < other.key ? -1 : 1)
      assert.deepEqual(found.toSorted(byKey), this.memory.chains.ofPartition(partition).toSorted(byKey))
    }
    const steps = await this.world.query<{ place: string }>(
      `SELECT partition || '/' || "offset" AS place FROM @.steps ORDER BY partition, "offset"`,
    )
    const kept = this.#allPlaces().filter((place) => this.memory.steps.of(place).size > 0)
    assert.deepEqual(
      steps.map(({ place }) => place),
      kept.map(nameOf),
    )
  }

  #allPlaces() {
    return this.next.flatMap((next, partition) => Array.from({ length: next }, (_, offset) => ({ partition, offset })))
  }

  async #idsOf(letters: readonly number[]): Promise<[number[], number[]]> {
    const stored = await this.world.deadLetters.page(this.world.database, this.world.key, { limit: 1_000 })
    const remembered = [...this.memory.deadLetters]
    return [letters.map((place) => stored[place]!.id), letters.map((place) => remembered[place]!.id)]
  }

  async #storedRows(state: DeliveryState): Promise<unknown[]> {
    const leased = new Set(state.leasedRows())
    const rows = await this.world.query<Record<string, unknown> & { rowId: number; failures: string }>(
      `SELECT row_id AS "rowId", partition, "offset", key, wait, due_at_ms AS "dueAtMs", status, attempt, crashes,
              failures, failed_under AS "failedUnder", event IS NOT NULL AS copied
         FROM @.set_aside`,
    )
    const plain = rows.map(({ rowId, failures, failedUnder, ...row }) => {
      const isLeased = leased.has(rowId)
      const kept = { failures: JSON.parse(failures).length, failedUnder: isLeased ? null : failedUnder, isLeased }
      return { ...row, ...kept } as unknown as ReturnType<typeof plainRow>
    })
    return plain.toSorted(byPlace)
  }

  async #storedLetters(): Promise<unknown[]> {
    const letters = await this.world.deadLetters.page(this.world.database, this.world.key, { limit: 1_000 })
    return letters.map(plainLetter)
  }

  #dueInMemory(): MemoryRow[] {
    const due = this.memory.rows.due(this.nowMs)
    const taken: MemoryRow[] = []
    const inOrder = due.toSorted((one, other) => dueAtMs(one) - dueAtMs(other) || byOffset(one, other))
    for (const row of inOrder) {
      if (this.memory.ordered && !this.memory.chains.isFree(row)) continue
      row.isLeased = true
      taken.push(row)
    }
    for (const row of taken) row.isLeased = false
    return taken
  }

  #rowAt(partition: number, offset: number): MemoryRow {
    const rows = [...this.memory.rows].filter((row) => row.partition === partition && row.offset === offset)
    assert.equal(rows.length, 1)
    return rows[0]!
  }

  #fill(partition: number): void {
    const log = this.store.topic('topic').log(partition)
    for (let offset = 0; offset < MESSAGES; offset++) {
      const { source, type, specversion: _, ...own } = eventAt(partition, offset)
      log.append(JSON.stringify({ source, type }), [{ json: JSON.stringify(own), timeMs: 0 }])
    }
  }
}

function plainRow(row: MemoryRow) {
  const { partition, offset, key = null, wait, status, isLeased, failedUnder, history } = row
  return {
    partition,
    offset,
    key,
    wait: wait.for as string,
    dueAtMs: wait.for === 'turn' ? null : wait.dueAtMs,
    status,
    attempt: history.attempt,
    crashes: history.crashes,
    copied: history.event !== undefined,
    failures: history.failures.length,
    failedUnder: isLeased ? null : (failedUnder ?? null),
    isLeased,
  }
}

function plainLetter(letter: DeadLetter) {
  const { id: _, deadAtMs: __, ...rest } = letter
  return rest
}

function plainLease(lease: Lease): number[] {
  return [lease.id, ...[...lease.unsettledRuns()].flatMap(({ from, to }) => [from, to])]
}

interface Place {
  readonly partition: number
  readonly offset: number
}

function nameOf({ partition, offset }: Place): string {
  return `${partition}/${offset}`
}

function byPlace(one: Place, other: Place): number {
  return one.partition - other.partition || one.offset - other.offset
}

function byOffset(one: Place, other: Place): number {
  return one.offset - other.offset || one.partition - other.partition
}

function byTime(one: Row, other: Row): number {
  return one.dueAtMs - other.dueAtMs || byOffset(one, other)
}

/** Ranges that touch and have crashed as often are one. */
function joined(ranges: readonly { partition: number; from: number; to: number; crashes: number }[]): unknown[] {
  const all: { partition: number; from: number; to: number; crashes: number }[] = []
  for (const range of ranges) {
    const last = all.at(-1)
    const touches = last?.partition === range.partition && last.to === range.from && last.crashes === range.crashes
    if (touches) last.to = range.to
    else all.push({ ...range })
  }
  return all
}

/** One settlement or several, of leases that are held. */
async function randomSettlements(twins: Twins, random: Random, severalAtOnce: boolean): Promise<Settlement[]> {
  const state = await twins.world.state()
  // Those of rows twice as often as the others, which are many.
  const rows = [...state.leases.values()].filter(({ rowId }) => rowId !== undefined)
  const leases = [...(random.number() < 0.5 && rows.length > 0 ? rows : state.leases.values())]
  const count = severalAtOnce ? 1 + Math.floor(random.number() * 5) : 1
  return Array.from({ length: Math.min(count, leases.length) }, () => {
    const place = Math.floor(random.number() * leases.length)
    const [{ id, open }] = leases.splice(place, 1) as [(typeof leases)[0]]
    return randomSettlement(twins, random, id, open)
  })
}

function randomSettlement(twins: Twins, random: Random, lease: number, open: readonly number[]): Settlement {
  const acked: number[] = []
  const exceptions: SettledException[] = []
  const last = open.at(-1)!
  for (let offset = Math.max(0, open[0]! - 1); offset < last + 1; offset++) {
    const chance = random.number()
    if (chance < 0.3) acked.push(offset, offset + 1)
    else if (chance < 0.95) exceptions.push(randomException(twins, random, offset))
  }
  const freed = [0, 1].filter(() => random.number() < 0.5).map((key) => `k${key}`)
  const stepped = acked.filter((offset, place) => place % 2 === 0 && contains(open, offset))
  return { lease, acked, exceptions, stepped, ...(freed.length > 0 && { freed }) }
}

function randomException(twins: Twins, random: Random, offset: number): SettledException {
  const kinds = ['retry', 'park', 'park', 'release', 'retry', 'park', 'dead', 'park', 'release', 'park'] as const
  const kind = kinds[Math.floor(random.number() * kinds.length)]!
  const key = twins.memory.ordered && offset % 5 !== 4 ? { key: `k${offset % 2}` } : {}
  const atMs = twins.nowMs + Math.floor(random.number() * 3) * 1_000
  if (kind === 'release') return { offset, kind }
  if (kind === 'retry') return { offset, kind, dueAtMs: atMs, failure: failure(1), ...key }
  if (kind === 'dead')
    return { offset, kind, reason: 'attempts', failure: failure(1), blocks: random.number() < 0.1, ...key }
  const until = [atMs, 'chain', 'freed'] as const
  return { offset, kind, until: until[Math.floor(random.number() * until.length)]!, ...key }
}

interface Mode {
  readonly ordered: boolean
  readonly maxCrashes: number
  readonly severalAtOnce: boolean
}

/** What happens in a round, and how often. */
const EVENTS = {
  leaseFresh: 8,
  leaseDue: 40,
  leaseReturned: 3,
  settle: 50,
  release: 5,
  lose: 3,
  cancel: 2,
  redrive: 3,
  deleteLetters: 4,
  advanceAll: 1,
  recordSteps: 2,
  tick: 25,
} as const

function pickEvent(random: Random): keyof typeof EVENTS {
  let left = random.number() * Object.values(EVENTS).reduce((sum, weight) => sum + weight, 0)
  for (const [event, weight] of Object.entries(EVENTS)) {
    left -= weight
    if (left < 0) return event as keyof typeof EVENTS
  }
  return 'tick'
}

async function carryOut(event: keyof typeof EVENTS, twins: Twins, random: Random, mode: Mode): Promise<void> {
  const { memory, world } = twins
  const some = () => [...memory.leases.keys()].filter(() => random.number() < 0.3)
  const letters = () => [...memory.deadLetters].map((_, place) => place).filter(() => random.number() < 0.4)
  const partition = Math.floor(random.number() * PARTITIONS)
  const events: Record<keyof typeof EVENTS, () => Promise<void>> = {
    leaseFresh: () => twins.leaseFresh(partition, 1 + Math.floor(random.number() * 6)),
    leaseDue: () => twins.leaseDue(random, mode.maxCrashes < 100),
    leaseReturned: () => twins.leaseReturned(),
    settle: async () => twins.settle(await randomSettlements(twins, random, mode.severalAtOnce)),
    release: () => twins.giveBack(some(), 'release'),
    lose: () => twins.giveBack(some(), 'lose'),
    cancel: () => twins.cancel(partition, Math.floor(random.number() * (twins.next[partition]! + 1))),
    redrive: () => twins.redrive(letters(), 2),
    deleteLetters: () => twins.deleteLetters(letters()),
    advanceAll: () => twins.advanceAll(partition),
    recordSteps: () => twins.recordSteps(),
    tick: () => world.clock.advance(1_000),
  }
  await events[event]()
}

const MODES: readonly (readonly [string, Mode])[] = [
  ['without order', { ordered: false, maxCrashes: 100, severalAtOnce: true }],
  ['with order', { ordered: true, maxCrashes: 100, severalAtOnce: false }],
  ['with suspects, without order', { ordered: false, maxCrashes: 3, severalAtOnce: true }],
  ['with suspects and order', { ordered: true, maxCrashes: 3, severalAtOnce: false }],
]

const EVERYTHING: Random = { ...seededRandom(0), number: () => 1 }

describe('settlement in Postgres is that in memory', { skip: await whyNoPostgres() }, () => {
  test('whichever comes back first of a message that failed and what was let go behind it', async (context) => {
    const twins = new Twins(await openWorld(context, { ordered: true, maxCrashes: 100 }), true, 100)
    await twins.leaseFresh(0, 2)
    const exceptions = [0, 1].map((offset) => ({ offset, kind: 'park', until: 'freed', key: 'k' }) as const)
    await twins.settle([{ lease: 1, acked: [], exceptions, freed: ['k'] }])
    await twins.leaseDue(EVERYTHING, false)
    const retry = { offset: 0, kind: 'retry', dueAtMs: twins.nowMs, failure: failure(1) } as const
    await twins.settle([{ lease: 2, acked: [], exceptions: [retry] }])
    await twins.leaseDue(EVERYTHING, false)
    await twins.giveBack([3, 4], 'release')
    await twins.compare()
  })

  for (const [name, mode] of MODES) {
    for (const seed of SEEDS) {
      test(`${name} (seed ${seed})`, async (context) => {
        const world = await openWorld(context, mode)
        const twins = new Twins(world, mode.ordered, mode.maxCrashes)
        const random = seededRandom(seed)
        for (let round = 0; round < ROUNDS; round++) {
          const event = pickEvent(random)
          await carryOut(event, twins, random, mode)
          await twins.compare().catch((error) => {
            context.diagnostic(`round ${round}: ${event}`)
            throw error
          })
        }
      })
    }
  }
})
