/**
 * While a breaker is not closed, what it tries is to be a message that has not failed before, if there is one: retries
 * are granted before all else, and those that are due may be just the ones that always fail, by the hundred.
 *
 * A retry that waits is *passed over*: it goes behind all others. So that they are fetched, it does not count as one that
 * waits, until the breaker closes. When there are more than can be passed over, some of them are tried.
 */
import type { Supply } from '../fetching/supply.ts'
import type { GrantLedger } from '../settlement/grant-ledger.ts'

// Each is kept in memory, and all of them are looked through before each probe.
const PASSED_OVER_MAX = 10_000

export class PassedOver {
  readonly #supply: Pick<Supply, 'held' | 'count' | 'take' | 'putBack'>
  /** A grant of a retry holds nothing else. */
  readonly #ledgers = new Set<GrantLedger>()

  constructor(supply: Pick<Supply, 'held' | 'count' | 'take' | 'putBack'>) {
    this.#supply = supply
  }

  get count(): number {
    return this.#ledgers.size
  }

  /** Gets a message to the front that was not tried before. Says whether there is more to be fetched now. */
  look(): boolean {
    const before = this.#ledgers.size
    for (let left = this.#inReach; left > 0; left--) {
      const item = this.#supply.take()
      if (item === undefined) break
      const isFirst = item.ledger.grant.attempt === 1
      this.#supply.putBack(item, isFirst ? 'first' : 'last')
      if (isFirst) break
      if (this.#ledgers.size < PASSED_OVER_MAX) this.#ledgers.add(item.ledger)
    }
    return this.#ledgers.size > before
  }

  // A suspect runs alone, whatever else there is.
  get #inReach(): number {
    return this.#supply.held ? 0 : Math.min(this.#supply.count, PASSED_OVER_MAX)
  }

  /** It is over, or counts for another reason. */
  forget(ledger: GrantLedger): void {
    this.#ledgers.delete(ledger)
  }

  clear(): void {
    this.#ledgers.clear()
  }
}
