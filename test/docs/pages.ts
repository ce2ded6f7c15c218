import { readdir, readFile } from 'node:fs/promises'
import { join, relative } from 'node:path'

/** The top of the repository. */
export const ROOT = join(import.meta.dirname, '..', '..')

/** A Markdown page: its path from the top of the repository, and its text. */
export interface Page {
  readonly path: string
  readonly text: string
}

/** A fenced block of code, with the line before its fence. */
export interface Block {
  readonly language: string
  readonly code: string
  readonly before: string
  /** Of the opening fence, counted from 1. */
  readonly line: number
}

/** The README, the page on the architecture, and everything under docs/. */
export async function readPages(): Promise<readonly Page[]> {
  const found = await readdir(join(ROOT, 'docs'), { recursive: true })
  const paths = ['README.md', 'ARCHITECTURE.md', ...found.map((path) => join('docs', path))]
  const pages = paths.filter((path) => path.endsWith('.md')).sort()
  return await Promise.all(pages.map(async (path) => ({ path, text: await readFile(join(ROOT, path), 'utf8') })))
}

export function blocksOf(page: Page): Block[] {
  const lines = page.text.split('\n')
  const blocks: Block[] = []
  for (let line = 0; line < lines.length; line++) {
    const language = /^```(\w*)$/.exec(lines[line]!)?.[1]
    if (language === undefined) continue
    const end = lines.indexOf('```', line + 1)
    if (end === -1) throw new Error(`${page.path}:${line + 1}: the block has no end.`)
    blocks.push({
      language,
      code: lines.slice(line + 1, end).join('\n'),
      before: lines[line - 1] ?? '',
      line: line + 1,
    })
    line = end
  }
  return blocks
}

/** Whether it is SQL for a Postgres store, as the comment before it says. */
export function isForPsql({ language, before }: Block): boolean {
  return language === 'sql' && before.startsWith('<!-- run in: psql')
}

/** The page without its blocks of code. */
export function proseOf(page: Page): string {
  return page.text.replaceAll(/^```[\s\S]*?^```$/gm, '')
}

/** A path as it is written in a page, from the top of the repository. */
export function fromRoot(path: string): string {
  return relative(ROOT, path)
}
