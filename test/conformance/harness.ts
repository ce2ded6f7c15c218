import type { Capabilities, Engine, EngineOptions } from '../../src/engine.ts'

/** What the suite needs to know about an engine in order to test it. */
export interface ConformanceHarness {
  readonly capabilities: Capabilities
  /** Names a store that does not exist yet. */
  newStore(): Promise<string>
  /** Deletes the store, whatever state it is in; all of its engines are closed. */
  removeStore(store: string): Promise<void>
  /** Opens the store, and creates it when it is not there. Each call stands for another process. */
  open(store: string, options: EngineOptions): Promise<Engine>
  /**
   * Ends the engine as `kill -9` would: its leases remain until they run out. Without it, the suite stops the engine's
   * clock and its pulls for good, which looks the same to everybody else who uses the store.
   */
  crash?(engine: Engine): Promise<void>
  /** Changes a stored byte of the first record batch of a topic's partition 0. */
  corrupt?(store: string, topic: string): Promise<void>
  /**
   * Opens the database that the store shares with its user, as a process of the user's does, with an empty table for
   * `UserDatabase.write`. Needed where `capabilities.transactionalHandlers` is declared.
   */
  userDatabase?(store: string): Promise<UserDatabase>
}

/** The user's own data beside the messages. */
export interface UserDatabase {
  /** Adds a value within a transaction that the engine handed out. */
  write(transaction: unknown, value: string): Promise<void>
  /** The values of transactions that were committed, in the order in which they were written. */
  values(): Promise<readonly string[]>
  close(): Promise<void>
}
