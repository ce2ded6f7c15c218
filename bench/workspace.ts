import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// From linux/magic.h; on other systems the type of a file system is another number, and temporary folders are on disk.
const TMPFS = 0x01021994
/** Of a store's files, and of what is put beside them. */
const ENDINGS = ['', '-wal', '-shm', '-wake', '-batches', '-batches-wal', '-batches-shm']
const FALLBACK = new URL('../node_modules/.cache', import.meta.url).pathname

/** A temporary folder on a real disk: what an fsync costs in memory says nothing. */
export class Workspace {
  readonly folder: string
  #files = 0

  constructor() {
    const inMemory = statfsSync(tmpdir()).type === TMPFS
    if (inMemory) mkdirSync(FALLBACK, { recursive: true })
    this.folder = mkdtempSync(join(inMemory ? FALLBACK : tmpdir(), 'posthorn-bench-'))
  }

  /** A path that nothing else uses. */
  file(): string {
    return join(this.folder, `${this.#files++}.db`)
  }

  /** Deletes everything, or what belongs to one file. */
  delete(file?: string): void {
    const paths = file === undefined ? [this.folder] : ENDINGS.map((ending) => file + ending)
    for (const path of paths) rmSync(path, { recursive: true, force: true })
  }
}
