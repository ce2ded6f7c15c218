import { setTimeout as sleep } from 'node:timers/promises'

/**
 * What the four stand-ins have in common: a service takes its time, counts whom it served, by email address, and can
 * be broken, after which it refuses everything until it is repaired.
 */
export class Service {
  readonly #latencyMs: readonly [number, number]
  readonly served = new Map<string, number>()
  broken = false

  constructor(latencyMs: readonly [number, number]) {
    this.#latencyMs = latencyMs
  }

  /** Resolves after a time drawn evenly from the service's range. */
  async takeTime(): Promise<void> {
    const [shortest, longest] = this.#latencyMs
    await sleep(shortest + Math.random() * (longest - shortest))
  }

  count(email: string): void {
    this.served.set(email, (this.served.get(email) ?? 0) + 1)
  }
}

export type Services = Readonly<Record<'email' | 'fraud' | 'customers' | 'slack', Service>>

export const services: Services = {
  email: new Service([300, 800]),
  fraud: new Service([200, 500]),
  customers: new Service([150, 400]),
  slack: new Service([100, 300]),
}
