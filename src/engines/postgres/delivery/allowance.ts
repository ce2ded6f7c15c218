import type { Lease } from './lease.ts'
import type { Turn } from './turns.ts'

export interface PullLimits {
  readonly messagesMax: number
  readonly bytesMax: number
}

/** What a pull asks for, and in whose name. */
export interface Demand {
  readonly source: string
  readonly limits: PullLimits
  /** How many pulls of this source came before: it turns partitions round. */
  readonly turn: number
  /** Whether this engine may have a suspect now. */
  readonly suspectAllowed: boolean
}

/** Whether one more crash would make a dead letter of a message that has `crashes` of them. */
export function isSuspect({ subscription }: Turn, crashes: number): boolean {
  return crashes >= Math.max(1, subscription.maxCrashes - 1)
}

/** What a pull may still be given, and the leases that it was. */
export class Allowance {
  readonly leases: Lease[] = []
  #messagesLeft: number
  #bytesLeft: number
  #suspectAllowed: boolean

  constructor({ limits, suspectAllowed }: Demand) {
    this.#messagesLeft = limits.messagesMax
    this.#bytesLeft = limits.bytesMax
    this.#suspectAllowed = suspectAllowed
  }

  get messagesLeft(): number {
    return this.#messagesLeft
  }

  get bytesLeft(): number {
    return this.#bytesLeft
  }

  get isFull(): boolean {
    return this.#messagesLeft <= 0 || (this.#bytesLeft <= 0 && this.leases.length > 0)
  }

  get suspectAllowed(): boolean {
    return this.#suspectAllowed
  }

  spend(lease: Lease, messages: number, bytes: number): void {
    this.leases.push(lease)
    this.#messagesLeft -= messages
    this.#bytesLeft -= bytes
    if (lease.isolated) this.#suspectAllowed = false
  }
}
