import type { Engine, EngineOptions } from '../../engine.ts'
import { MemoryEngine } from './memory-engine.ts'
import { MemoryStore } from './store.ts'

// Named stores live as long as the process, so that closing the last connection and opening another loses nothing.
const namedStores = new Map<string, MemoryStore>()

/**
 * Opens the in-memory engine, for tests and for what may be lost when the process ends. `memory:` is a store of its
 * own; `memory:name` is shared by all connections of this process that use the name.
 */
export async function connectMemory(url: URL | string, options: EngineOptions): Promise<Engine> {
  return new MemoryEngine(storeOf(url), options)
}

function storeOf(url: URL | string): MemoryStore {
  const name = String(url).replace(/^memory:(\/\/)?/, '')
  if (name === '') return new MemoryStore()
  const store = namedStores.get(name) ?? new MemoryStore()
  namedStores.set(name, store)
  return store
}
