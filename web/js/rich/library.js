// Libraries that are loaded when the first text needs them. None of them imports another module.

const failed = new Map(); // path -> how often it could not be fetched

/**
 * A module below web/vendor. Rejects with a TypeError if it cannot be fetched; the next call tries
 * again, at another address, because a browser keeps in mind what it could not fetch.
 */
export async function library(path) {
  const address = new URL(`../../vendor/${path}`, import.meta.url);
  const times = failed.get(path) ?? 0;
  if (times > 0) address.search = `again=${times}`;
  try {
    return await import(address.href);
  } catch (error) {
    failed.set(path, times + 1);
    throw error;
  }
}
